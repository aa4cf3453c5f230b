// A minimal custom handler with Go's standard library alone: what the invocation benchmark measures
// the platform's handler against. It reads the same payload and gives the same answer.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"
)

type invocation struct {
	Data     map[string]json.RawMessage
	Metadata map[string]json.RawMessage
}

type request struct {
	Method  string
	Headers map[string][]string
	Query   map[string]string
	Params  map[string]string
	Body    string
}

type answer struct {
	Outputs     map[string]response
	Logs        []string
	ReturnValue any
}

type response struct {
	StatusCode int               `json:"statusCode"`
	Headers    map[string]string `json:"headers"`
	Body       string            `json:"body"`
}

func health(w http.ResponseWriter, r *http.Request) {
	var asked invocation
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var req request
	if err := json.Unmarshal(asked.Data["req"], &req); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	body, err := json.Marshal(map[string]string{"status": "Healthy", "at": time.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	err = json.NewEncoder(w).Encode(answer{
		Outputs: map[string]response{"res": {
			StatusCode: http.StatusOK,
			Headers:    map[string]string{"Content-Type": "application/json; charset=utf-8"},
			Body:       string(body),
		}},
		Logs: []string{},
	})
	if err != nil {
		log.Print(err)
	}
}

func main() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	http.HandleFunc("POST /Health", health)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), nil))
}

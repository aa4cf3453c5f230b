//! What one invocation costs, beside a minimal custom handler in Go: `cargo bench --bench invocation`.
//!
//! Both answer `POST /Health` with the payload that the Functions host sends and the same answer.
//! Rounds alternate, each with a process of its own; where there is `taskset`, handlers have one CPU
//! and the load another. Requests per second of the handler's own CPU time are printed too: they move
//! least when the machine does other things.

mod machine;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use machine::{Spread, quantile};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream as AsyncStream,
};

const STARTS: usize = 20;
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(3);
/// How long a handler may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a handler that starts.
const LOOK_AGAIN: Duration = Duration::from_micros(200);
/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Ticks of `/proc/PID/stat` in a second: the same on every Linux that user programs see.
const TICKS_PER_SECOND: f64 = 100.0;
/// The aims: start no later than Go's, so many times its requests, so much memory at most.
const REQUESTS_AIM: f64 = 1.5;
const MEMORY_AIM_MEBIBYTES: f64 = 20.0;

/// One of the two handlers.
struct Handler {
    name: &'static str,
    program: PathBuf,
}

fn main() -> ExitCode {
    machine::introduce();
    let ours = Handler { name: "ours", program: env!("CARGO_BIN_EXE_handler").into() };
    let go = match go_handler() {
        Ok(program) => Some(Handler { name: "Go", program }),
        Err(why) => {
            println!("without the handler in Go, so there is nothing to compare with: {why}");
            None
        }
    };
    let pinned = pin_the_load();
    println!("{}", if pinned { "handlers on CPU 0, load on CPU 1" } else { "nothing is pinned to a CPU: `taskset` is missing or refused" });
    let handlers: Vec<&Handler> = [Some(&ours), go.as_ref()].into_iter().flatten().collect();
    let mut figures: Vec<Figures> = handlers.iter().map(|_| Figures::default()).collect();
    for _ in 0..STARTS {
        for (handler, figures) in handlers.iter().zip(&mut figures) {
            let (answered, invoked) = start(handler, pinned);
            figures.answered.push(answered);
            figures.invoked.push(invoked);
        }
    }
    for _ in 0..ROUNDS {
        for (handler, figures) in handlers.iter().zip(&mut figures) {
            figures.rounds.push(round(handler, pinned));
        }
    }
    println!("load average at the end: {}\n", machine::load());
    for (handler, figures) in handlers.iter().zip(&figures) {
        figures.print(handler);
    }
    if let [ours, go] = figures.as_slice() {
        compare(ours, go);
    }
    ExitCode::SUCCESS
}

/// Builds the handler in Go below `target/`.
fn go_handler() -> Result<PathBuf, String> {
    let version = machine::said_by("go", "version").ok_or("`go` is not installed")?;
    println!("go: {version}");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-handler");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/go_handler"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("`go build` ended with {status}")),
        Err(error) => Err(format!("`go build` cannot be run: {error}")),
    }
}

/// Keeps this process off the handlers' CPU.
fn pin_the_load() -> bool {
    let own = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &own]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    pinned.is_ok_and(|status| status.success())
}

/// A handler that runs, ended when it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    began: Instant,
    _data: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(handler: &Handler, pinned: bool) -> Self {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for a directory");
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = probe.local_addr().expect("a bound listener has an address");
        drop(probe);
        let mut command = if pinned { Command::new("taskset") } else { Command::new(&handler.program) };
        if pinned {
            command.args(["-c", "0"]).arg(&handler.program);
        }
        command
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", address.port().to_string())
            .env("STORE", format!("sqlite:{}", data.path().join("store.db").display()))
            .env("SERVICE_BUS_ENDPOINT", "https://localhost:1")
            .env("RESOURCE_MANAGER_ENDPOINT", "https://localhost:1")
            .env("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-00000000c105")
            .env("AZURE_DIRECTORY_ID", "00000000-0000-0000-0000-0000000d13ec")
            .env("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
            .env("IDENTITY_HEADER", "bench")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let began = Instant::now();
        let child = command.spawn().expect("the handler starts");
        Self { child, address, began, _data: data }
    }

    /// Asks until the answer is 200, and tells how long after the start that was.
    fn first_answer(&self, request: &[u8]) -> f64 {
        while self.began.elapsed() < PATIENCE {
            if self.ask(request).is_some() {
                return self.began.elapsed().as_secs_f64() * 1000.0;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        panic!("no answer within {PATIENCE:?}");
    }

    /// One exchange on a connection of its own; the body of a 200.
    fn ask(&self, request: &[u8]) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.write_all(request).ok()?;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
            bytes.extend_from_slice(&part[..read]);
            match answer_length(&bytes) {
                Answer::Whole { head, .. } => return String::from_utf8(bytes[head..].to_vec()).ok(),
                Answer::Partial if bytes.len() < ANSWER_BYTES_MAX => {}
                Answer::Partial | Answer::Unexpected => return None,
            }
        }
    }

    /// CPU time so far, in seconds.
    fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// The most memory that it ever had, in MiB.
    fn peak_mebibytes(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kibibytes| kibibytes / 1024.0)
    }
}

/// Milliseconds from the start to the first 200 of the host's readiness request and of an invocation.
fn start(handler: &Handler, pinned: bool) -> (f64, f64) {
    let running = Running::start(handler, pinned);
    let answered = running.first_answer(READINESS);
    (answered, running.first_answer(&invocation()))
}

const READINESS: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// An invocation of `Health` as the host posts it: its default payload for an HTTP trigger, chunked.
fn invocation() -> Vec<u8> {
    let body = json!({
        "Data": { "req": {
            "Url": "http://localhost:7071/api/v1/runtime/health",
            "Method": "GET",
            "Query": {},
            "Headers": {
                "Accept": ["*/*"],
                "Connection": ["keep-alive"],
                "Host": ["localhost:7071"],
                "User-Agent": ["runtimectl/0.1.0"],
                "x-cs-tenant-id": ["connectsoft"],
                "x-functions-key": ["a-key-that-is-as-long-as-the-keys-of-functions-are-=="],
            },
            "Params": {},
            "Identities": [{
                "AuthenticationType": "WebJobsAuthLevel",
                "IsAuthenticated": true,
                "Actor": null,
                "BootstrapContext": null,
                "Claims": [{ "Issuer": "LOCAL AUTHORITY", "Type": "http://schemas.microsoft.com/2017/07/functions/claims/authlevel", "Value": "Function" }],
                "Label": null,
                "Name": null,
                "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
                "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
            }],
        } },
        "Metadata": {
            "Query": {},
            "Headers": { "Accept": "*/*", "Connection": "keep-alive", "Host": "localhost:7071", "User-Agent": "runtimectl/0.1.0", "x-cs-tenant-id": "connectsoft" },
            "sys": { "MethodName": "Health", "UtcNow": "2026-01-02T03:04:05.678901Z", "RandGuid": "0f8fad5b-d9cb-469f-a165-70867728950e" },
        },
    })
    .to_string();
    format!(
        "POST /Health HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         X-Azure-Functions-HostVersion: 4.1036.0\r\n\
         X-Azure-Functions-InvocationId: 7c9e6679-7425-40de-944b-e07fc1f90ae7\r\n\
         User-Agent: Azure-Functions-Host/4.1036.0\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\
         Content-Type: application/json; charset=utf-8\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
    .into_bytes()
}

enum Answer {
    /// A whole 200: where its body begins, and where it ends.
    Whole { head: usize, end: usize },
    Partial,
    Unexpected,
}

/// How far an answer has come. Both handlers name the length of their answers.
fn answer_length(bytes: &[u8]) -> Answer {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else { return Answer::Partial };
    let Ok(text) = std::str::from_utf8(&bytes[..head]) else { return Answer::Unexpected };
    if !text.starts_with("HTTP/1.1 200") {
        return Answer::Unexpected;
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if bytes.len() >= head + length => Answer::Whole { head, end: head + length },
        Some(_) => Answer::Partial,
        None => Answer::Unexpected,
    }
}

/// What one round under load showed.
struct Round {
    requests_per_second: f64,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
    /// None where the system does not tell.
    cpu_seconds_per_1000: Option<f64>,
    peak_mebibytes: Option<f64>,
}

fn round(handler: &Handler, pinned: bool) -> Round {
    let running = Running::start(handler, pinned);
    running.first_answer(READINESS);
    let request = invocation();
    running.first_answer(&request);
    check_answer(handler, &running.ask(&request).expect("it answers as it did before"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(load(running.address, &request, WARM_UP));
    let before = running.cpu_seconds();
    let began = Instant::now();
    let mut latencies = runtime.block_on(load(running.address, &request, ROUND));
    let (elapsed, after) = (began.elapsed().as_secs_f64(), running.cpu_seconds());
    latencies.sort_by(f64::total_cmp);
    let requests = latencies.len() as f64;
    Round {
        requests_per_second: requests / elapsed,
        p50_milliseconds: quantile(&latencies, 0.5),
        p99_milliseconds: quantile(&latencies, 0.99),
        cpu_seconds_per_1000: before.zip(after).map(|(before, after)| (after - before) / requests * 1000.0),
        peak_mebibytes: running.peak_mebibytes(),
    }
}

/// Both must say the same, or the comparison says nothing.
fn check_answer(handler: &Handler, body: &str) {
    let answer: Value = serde_json::from_str(body).expect("the answer is JSON");
    let inner: Value = serde_json::from_str(answer["Outputs"]["res"]["body"].as_str().unwrap_or_default()).expect("its body is JSON");
    let said = (&answer["Outputs"]["res"]["statusCode"], &inner["status"]);
    assert_eq!(said, (&json!(200), &json!("Healthy")), "the answer of {}", handler.name);
}

/// Requests over kept connections, each sent when the one before is answered: their latencies in
/// milliseconds.
async fn load(address: SocketAddr, request: &[u8], lasting: Duration) -> Vec<f64> {
    let until = Instant::now() + lasting;
    let connections = (0..CONNECTIONS).map(|_| async {
        let mut stream = AsyncStream::connect(address).await.expect("the handler listens");
        stream.set_nodelay(true).expect("a socket takes the option");
        let (mut latencies, mut bytes) = (Vec::new(), Vec::with_capacity(ANSWER_BYTES_MAX));
        while Instant::now() < until {
            let began = Instant::now();
            stream.write_all(request).await.expect("the handler reads");
            bytes.clear();
            loop {
                assert!(stream.read_buf(&mut bytes).await.expect("the handler answers") > 0, "the handler hung up");
                match answer_length(&bytes) {
                    Answer::Whole { end, .. } if end == bytes.len() => break,
                    Answer::Partial if bytes.len() < ANSWER_BYTES_MAX => {}
                    Answer::Whole { .. } | Answer::Partial | Answer::Unexpected => panic!("not the answer that was expected"),
                }
            }
            latencies.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        latencies
    });
    futures::future::join_all(connections).await.concat()
}

/// What was found of one handler.
#[derive(Default)]
struct Figures {
    answered: Vec<f64>,
    invoked: Vec<f64>,
    rounds: Vec<Round>,
}

impl Figures {
    fn spread(&self, of: impl Fn(&Round) -> Option<f64>) -> Spread {
        Spread::of(self.rounds.iter().filter_map(of))
    }

    fn print(&self, handler: &Handler) {
        let bytes = fs::metadata(&handler.program).map_or(f64::NAN, |file| file.len() as f64);
        println!("{}: median (least to most) of {STARTS} starts and {ROUNDS} rounds of {ROUND:?} with {CONNECTIONS} connections", handler.name);
        println!("  start to first 200 of GET /         {} ms", Spread::of(self.answered.iter().copied()));
        println!("  start to first 200 of an invocation {} ms", Spread::of(self.invoked.iter().copied()));
        println!("  requests per second                 {}", self.spread(|round| Some(round.requests_per_second)));
        println!("  p50                                 {} ms", self.spread(|round| Some(round.p50_milliseconds)));
        println!("  p99                                 {} ms", self.spread(|round| Some(round.p99_milliseconds)));
        println!("  CPU seconds per 1,000 requests      {:.4}", self.spread(|round| round.cpu_seconds_per_1000).median);
        println!("  peak memory                         {} MiB", self.spread(|round| round.peak_mebibytes));
        println!("  binary                              {:.1} MiB\n", bytes / 1024.0 / 1024.0);
    }
}

fn compare(ours: &Figures, go: &Figures) {
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    let start = |figures: &Figures| Spread::of(figures.answered.iter().copied()).median;
    let (ours_start, go_start) = (start(ours), start(go));
    println!("start:    {:.2} times Go's time; aim at most 1: {}", ours_start / go_start, verdict(ours_start <= go_start));
    let requests = |figures: &Figures| figures.spread(|round| Some(round.requests_per_second)).median;
    let ratio = requests(ours) / requests(go);
    println!("requests: {ratio:.2} times Go's; aim at least {REQUESTS_AIM}: {}", verdict(ratio >= REQUESTS_AIM));
    let cpu = |figures: &Figures| figures.spread(|round| round.cpu_seconds_per_1000).median;
    println!("requests per CPU second: {:.2} times Go's", cpu(go) / cpu(ours));
    let memory = |figures: &Figures| figures.spread(|round| round.peak_mebibytes).median;
    println!(
        "memory:   {:.1} MiB, Go's {:.1}; aim at most {MEMORY_AIM_MEBIBYTES}: {}",
        memory(ours),
        memory(go),
        verdict(memory(ours) <= MEMORY_AIM_MEBIBYTES)
    );
}

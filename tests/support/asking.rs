//! Calls of HTTP functions, as the host makes them.

use std::collections::BTreeMap;

use runtime_platform::{
    functions::Run,
    invocation::{HttpAnswer, HttpRequest},
};
use serde_json::Value;

use super::{
    builders::{PROJECT, TENANT},
    test_platform::TestPlatform,
};

impl TestPlatform {
    /// Calls an HTTP function for the tenant of the builders.
    pub async fn get(&self, name: &str, id: Option<&str>) -> HttpAnswer {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a function");
        let Run::Http(run) = function.run else { panic!("{name} takes no requests") };
        let params = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
        let headers = BTreeMap::from([("x-cs-tenant-id".to_owned(), TENANT.to_owned())]);
        run(
            self.platform.clone(),
            HttpRequest { method: "GET".into(), headers, params, ..HttpRequest::default() },
        )
        .await
    }

    /// Calls an HTTP function with query parameters, in the name of a tenant.
    pub async fn ask(&self, name: &str, tenant: &str, query: &[(&str, &str)]) -> HttpAnswer {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a function");
        let Run::Http(run) = function.run else { panic!("{name} takes no requests") };
        let headers = BTreeMap::from([("x-cs-tenant-id".to_owned(), tenant.to_owned())]);
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        run(
            self.platform.clone(),
            HttpRequest { method: "GET".into(), headers, query, ..HttpRequest::default() },
        )
        .await
    }

    /// Calls an HTTP function about one thing, in the name of a tenant.
    pub async fn ask_one(&self, name: &str, tenant: &str, id: &str, query: &[(&str, &str)]) -> HttpAnswer {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a function");
        let Run::Http(run) = function.run else { panic!("{name} takes no requests") };
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let request = HttpRequest {
            method: "GET".into(),
            headers: text(&[("x-cs-tenant-id", tenant)]),
            params: text(&[("id", id)]),
            query: text(query),
            ..HttpRequest::default()
        };
        run(self.platform.clone(), request).await
    }

    /// Posts to an HTTP function for the tenant of the builders, in the name of the key `olga`.
    pub async fn post(
        &self,
        name: &str,
        id: Option<&str>,
        body: Value,
        idempotency_key: Option<&str>,
    ) -> HttpAnswer {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a function");
        let Run::Http(run) = function.run else { panic!("{name} takes no requests") };
        let params = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
        let mut headers = BTreeMap::from([("x-cs-tenant-id".to_owned(), TENANT.to_owned())]);
        headers.insert("x-cs-project-id".to_owned(), PROJECT.to_owned());
        if let Some(key) = idempotency_key {
            headers.insert("idempotency-key".to_owned(), key.to_owned());
        }
        let request = HttpRequest {
            method: "POST".into(),
            headers,
            params,
            body: Some(body.to_string()),
            key_name: Some("olga".into()),
            ..HttpRequest::default()
        };
        run(self.platform.clone(), request).await
    }

    /// Posts a command to its HTTP function, as [`TestPlatform::post`].
    pub async fn post_command(&mut self, name: &str, id: Option<&str>, body: Value, key: &str) -> HttpAnswer {
        let answer = self.post(name, id, body, Some(key)).await;
        if let Some(id) = answer.body["eventId"].as_str() {
            self.commands.insert(id.to_owned());
        }
        answer
    }

    /// Calls an HTTP function with a request of any kind.
    pub async fn request(&self, name: &str, request: HttpRequest) -> HttpAnswer {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a function");
        let Run::Http(run) = function.run else { panic!("{name} takes no requests") };
        run(self.platform.clone(), request).await
    }
}

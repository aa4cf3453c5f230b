//! The function app as `runtimectl stage` lays it out for Azure's host: our own host runs it too.

use std::{fs, time::Duration};

use crate::{orders, up::Place};

/// How long a command may take to its end.
const END: Duration = Duration::from_secs(40);

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let app = place.path("app");
        let staged = place.command(&["stage", "--output", app.to_str().unwrap()]).output().unwrap();
        assert!(staged.status.success(), "{}", String::from_utf8_lossy(&staged.stderr));
        let functions = runtime_platform::functions::all();
        for function in &functions {
            let file = app.join(function.name).join("function.json");
            assert!(file.is_file(), "{} is not there", file.display());
        }
        assert!(fs::metadata(app.join("handler")).unwrap().len() > 0);
        assert!(!app.join("functions").exists(), "Azure's host looks for functions right beside host.json");

        // Far from the checkout, as a staged app is.
        let mut command = place.command(&["up", "--app", app.to_str().unwrap(), "--data"]);
        command.arg(place.data()).current_dir(place.path("tmp"));
        let mut up = place.spawn(command);
        let client = up.ready().await;
        let ended = client.carry_out(&orders::provision("staged"), END).await;
        assert_eq!(ended["outcome"]["eventType"], "RuntimeEnvironmentProvisioned", "{ended}");
        assert!(up.interrupt().await.success());
        println!("  {} functions staged and run", functions.len());
    })
}

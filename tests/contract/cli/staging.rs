//! `stage` and `logs`: what needs files and no platform.

use std::{io::Write, os::unix::fs::PermissionsExt, process::Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};

use super::fake::{Fake, interrupt, next, not_found, run};

#[tokio::test]
async fn an_app_is_staged_from_anywhere_within_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let host = r#"{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"}}}"#;
    std::fs::write(root.join("host.json"), host).unwrap();
    std::fs::create_dir_all(root.join("functions/Deploy")).unwrap();
    std::fs::write(
        root.join("functions/Deploy/function.json"),
        r#"{"bindings":[{"type":"serviceBusTrigger"}]}"#,
    )
    .unwrap();
    std::fs::write(root.join("built"), "binary").unwrap();

    let within = root.join("functions");
    let ran = run(&within, &["stage", "--handler", "../built"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let staged = root.join("target/app");
    assert_eq!(ran.out.trim(), staged.display().to_string());
    assert!(ran.err.contains("func start"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(staged.join("host.json")).unwrap(), host);
    assert!(staged.join("Deploy/function.json").is_file());
    assert_eq!(std::fs::metadata(staged.join("handler")).unwrap().permissions().mode() & 0o777, 0o755);

    let ran = run(&root, &["stage", "--handler", "nothing"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("There is no handler"), "{}", ran.err);
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = run(elsewhere.path(), &["stage"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("There is no `host.json`"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_shown_from_its_end_and_by_function_and_level() {
    let fake = Fake::start(|_| not_found("NotFound")).await;
    let ran = fake.run(&["logs"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("Cannot read the log"), "{}", ran.err);

    let line = |level: &str, function: &str, message: &str| {
        format!(
            r#"{{"timestamp":"2026-03-02T10:15:30Z","level":"{level}","fields":{{"message":"{message}"}},"span":{{"function.name":"{function}"}}}}"#
        )
    };
    let log = [
        line("INFO", "Deploy", "one"),
        line("WARN", "Deploy", "two"),
        "not json".into(),
        line("ERROR", "Sweep", "three"),
    ];
    fake.write(".runtime/platform.log", &(log.join("\n") + "\n"));
    let shown = |args: &'static [&'static str]| {
        let fake = &fake;
        async move { fake.run(args).await.out }
    };
    assert_eq!(shown(&["logs", "-n", "2"]).await, "not json\n10:15:30Z  ERROR  Sweep  three\n");
    assert_eq!(
        shown(&["logs", "--function", "Deploy", "--level", "warn"]).await,
        "10:15:30Z  WARN   Deploy  two\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_goes_on_until_it_is_interrupted() {
    let fake = Fake::start(|_| not_found("NotFound")).await;
    fake.write(".runtime/platform.log", "first\n");
    let mut child = fake.command(&["logs", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(next(&mut lines).await, "first");
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(fake.folder.path().join(".runtime/platform.log"))
        .unwrap();
    log.write_all(b"second\n").unwrap();
    assert_eq!(next(&mut lines).await, "second");
    interrupt(&child);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

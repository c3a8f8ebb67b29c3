//! A stand-in for the supervisor of a pod: takes what the pod gives, and waits.
//!
//! Built by the tests with `rustc` alone, static; without signals, so it ends by SIGKILL. A sandbox whose name begins with `exit-` ends
//! with that code, one with `says-` with that code and last words.

use std::{env, fs, path::Path, process::exit, thread, time::Duration};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["install", directory] => {
            fs::copy("/proc/self/exe", Path::new(directory).join("openshell-sandbox")).expect("copied");
        }
        ["pod"] => pod(),
        _ => exit(64),
    }
}

fn pod() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let name = variable("OPENSHELL_SANDBOX");
    for name in ["OPENSHELL_SANDBOX_ID", "OPENSHELL_GATEWAY_ENDPOINT", "OPENSHELL_GATEWAY_SERVER_NAME", "OPENSHELL_INSTANCE_ID"] {
        eprintln!("{name}={}", variable(name));
    }
    for file in ["/var/run/secrets/openshell/token", "/var/run/secrets/openshell/ca.crt"] {
        eprintln!("{file}: {} bytes", fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}")).len());
    }
    for directory in ["/var/lib/openshell", "/sandbox"] {
        fs::write(Path::new(directory).join("written"), name.as_bytes()).unwrap_or_else(|error| panic!("{directory}: {error}"));
    }
    assert!(fs::write("/openshell/written", "").is_err(), "the supervisor's volume can be written");
    if let Some(code) = name.strip_prefix("says-") {
        let words = r#"{"code":"LandlockRequired","message":"the kernel has none"}"#;
        fs::write("/dev/termination-log", words).expect("the kubelet's file can be written");
        exit(code.parse().expect("a code"));
    }
    if let Some(code) = name.strip_prefix("exit-") {
        eprintln!("openshell-sandbox: ends as its name says");
        exit(code.parse().expect("a code"));
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

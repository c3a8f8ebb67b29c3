//! The main job, from nothing: an agent under a policy. Each step prints its verdict; the exit
//! code is 0 only if every one of them held.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};
use openshell_e2e::{Server, Stack, host, policy, report::Report, server::Authority, stack};

const SECRET: &str = "ghp_realvalue_0123456789";

fn main() -> ExitCode {
    match prepare() {
        Ok(demo) => demo.run(),
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    stack: Stack,
    server: Server,
    rules: String,
}

fn prepare() -> anyhow::Result<Demo> {
    println!("OpenShell demo, as {}", if host::is_root() { "root" } else { "an ordinary user" });
    let authority = Authority::new()?;
    let server = Server::https(&authority)?;
    let stack = Stack::with_env(&[("SSL_CERT_FILE", &authority.file())])?;
    println!("  a gateway on 127.0.0.1:{}, an HTTPS service on {}", stack.port(), server.address());
    let rules = "        rules:
          - allow: { method: GET, path: \"/repos/**\" }
        deny_rules:
          - { method: \"*\", path: \"/repos/secret/**\" }"
        .to_owned();
    stack.ok([
        "provider",
        "create",
        "--name",
        "forge",
        "--type",
        "generic",
        "--credential",
        &format!("FORGE_TOKEN={SECRET}"),
        "--endpoint",
        &format!("{}:{}", host::ALIAS, server.port()),
    ])?;
    stack.sandbox("demo", &policy::inspected(server.port(), host::address()?, &rules), &["--provider", "forge"])?;
    Ok(Demo { stack, server, rules })
}

impl Demo {
    fn run(self) -> ExitCode {
        let mut report = Report::default();
        report.step("an allowed request passes", || self.allowed());
        report.step("a forbidden method is denied, with its reason", || self.method());
        report.step("an unlisted host is denied", || self.unlisted());
        report.step("a connection straight to an IP address is denied", || self.by_address());
        report.step("a service on the host's loopback is out of reach", || self.loopback());
        report.step("a UNIX socket of the host is out of reach", || self.unix_socket());
        report.step("a write outside the workspace is denied", || self.write_outside());
        report.step("the server saw the credential, the sandbox only a placeholder", || self.credential());
        report.step("a live policy change decides the next request on an open connection", || self.live_change());
        report.step("the log explains each decision", || self.explained());
        report.finish()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", host::ALIAS, self.server.port())
    }

    fn curl(&self, args: &[&str]) -> anyhow::Result<(i32, String)> {
        let mut command = vec!["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}"];
        command.extend_from_slice(args);
        let output = self.stack.exec("demo", &command)?;
        Ok((output.status.code().unwrap_or(-1), stack::text(&output.stdout) + &stack::text(&output.stderr)))
    }

    fn allowed(&self) -> anyhow::Result<String> {
        let (code, seen) = self.curl(&[&self.url("/repos/acme")])?;
        ensure!(code == 0 && seen.contains("seen GET /repos/acme") && seen.contains("200"), "curl ended with {code}: {seen}");
        Ok(seen.trim().replace('\n', " "))
    }

    fn method(&self) -> anyhow::Result<String> {
        self.server.forget();
        let (_, seen) = self.curl(&["-X", "POST", "-d", "x=1", &self.url("/repos/acme")])?;
        ensure!(seen.contains("403") && seen.contains("policy_denied"), "not the denial that was expected: {seen}");
        ensure!(self.server.seen().is_empty(), "the request reached the server");
        Ok(seen.trim().replace('\n', " "))
    }

    fn unlisted(&self) -> anyhow::Result<String> {
        let (code, seen) = self.curl(&["https://example.com/"])?;
        ensure!(code != 0, "curl succeeded: {seen}");
        Ok(seen.trim().replace('\n', " "))
    }

    fn by_address(&self) -> anyhow::Result<String> {
        let program = format!(
            "import socket\ntry:\n  socket.create_connection(('{}', {}), 5)\n  print('connected')\nexcept OSError as e:\n  print('denied:', e)",
            host::address()?,
            self.server.port()
        );
        expect(&self.stack.python("demo", &program)?, "denied:")
    }

    fn loopback(&self) -> anyhow::Result<String> {
        let private = Server::loopback()?;
        let program = format!(
            "import socket\ntry:\n  socket.create_connection(('127.0.0.1', {}), 5)\n  print('connected')\nexcept OSError as e:\n  print('denied:', e)",
            private.port()
        );
        let seen = self.stack.python("demo", &program)?;
        ensure!(private.seen().is_empty(), "the request reached the host's service");
        expect(&seen, "denied:")
    }

    fn unix_socket(&self) -> anyhow::Result<String> {
        let path = std::env::temp_dir().join(format!("openshell-demo-{}.sock", std::process::id()));
        let _listener = UnixListener::bind(&path).context("a UNIX socket on the host")?;
        let program = format!(
            "import socket\ns = socket.socket(socket.AF_UNIX)\ntry:\n  s.connect('{}')\n  print('connected')\nexcept OSError as e:\n  print('denied:', e)",
            path.display()
        );
        let seen = self.stack.python("demo", &program);
        let _ = std::fs::remove_file(&path);
        expect(&seen?, "denied:")
    }

    fn write_outside(&self) -> anyhow::Result<String> {
        let program = "open('inside', 'w').write('x')\nfor p in ('/usr/outside', '/etc/outside', '/opt/outside', '../outside'):\n  try:\n    open(p, 'w')\n    print('wrote', p)\n  except OSError as e:\n    print('denied:', e)";
        let seen = self.stack.python("demo", program)?;
        expect(&seen, "denied:")
    }

    fn credential(&self) -> anyhow::Result<String> {
        self.server.forget();
        let command =
            format!("echo \"token: $FORGE_TOKEN\"; curl -sS -H \"Authorization: Bearer $FORGE_TOKEN\" {}", self.url("/repos/acme"));
        let output = self.stack.exec("demo", &["sh", "-c", &command])?;
        let inside = stack::text(&output.stdout) + &stack::text(&output.stderr);
        ensure!(!inside.contains(SECRET), "the sandbox saw the credential");
        ensure!(inside.contains("token: openshell:resolve:env:"), "no placeholder in the sandbox: {inside}");
        let seen = self.server.seen();
        let header = seen.last().and_then(|s| s.header("authorization")).unwrap_or_default().to_owned();
        ensure!(header == format!("Bearer {SECRET}"), "the server saw {header:?}");
        Ok(inside.lines().next().unwrap_or_default().to_owned())
    }

    fn live_change(&self) -> anyhow::Result<String> {
        let program = format!(
            "import http.client, ssl, sys\nc = http.client.HTTPSConnection('{}', {}, context=ssl.create_default_context())\n\
             c.request('GET', '/repos/acme'); r = c.getresponse(); r.read(); s = c.sock\nprint(r.status, flush=True)\nsys.stdin.readline()\n\
             c.request('GET', '/repos/acme'); r = c.getresponse(); b = r.read().decode()\nprint(r.status, 'same connection' if c.sock in (s, None) else 'another connection', b[:200], flush=True)\n",
            host::ALIAS,
            self.server.port()
        );
        let mut child = self
            .stack
            .command(["sandbox", "exec", "--name", "demo", "--no-tty", "--", "python3", "-u", "-c", &program])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("standard output")?).lines();
        let before = lines.next().context("the first answer")??;
        ensure!(before == "200", "the first request was answered with {before}");
        let narrower = self.rules.replace("/repos/**", "/users/**");
        let file = self.stack.file("narrower.yaml", &policy::inspected(self.server.port(), host::address()?, &narrower))?;
        self.stack.ok(["policy", "set", "demo", "--policy", &file.display().to_string(), "--wait"])?;
        child.stdin.take().context("standard input")?.write_all(b"\n")?;
        let after = lines.next().context("the second answer")??;
        child.wait()?;
        ensure!(after.starts_with("403 same connection"), "the second request was answered with {after}");
        Ok(format!("{before}, then {after}"))
    }

    fn explained(&self) -> anyhow::Result<String> {
        let log = self.stack.ok(["logs", "demo", "-n", "1000"])?;
        for needle in ["ALLOWED", "DENIED", "/repos/acme", "example.com", "127.0.0.1"] {
            ensure!(log.contains(needle), "the log does not mention {needle}:\n{log}");
        }
        ensure!(!log.contains(SECRET), "the log holds the credential");
        let denied: Vec<_> = log.lines().filter(|line| line.contains("DENIED")).collect();
        Ok(format!("{} lines, {} denials; one: {}", log.lines().count(), denied.len(), denied.first().unwrap_or(&"")))
    }
}

fn expect(seen: &str, prefix: &str) -> anyhow::Result<String> {
    ensure!(seen.lines().all(|line| line.starts_with(prefix)) && !seen.is_empty(), "{seen}");
    Ok(seen.trim().replace('\n', " "))
}

//! Real programs, unmodified and without proxy variables, in a sandbox.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use openshell_e2e::{
    Server, Stack, host, policy,
    server::Authority,
    stack::{run, scratch, text},
};

/// Runs a command with every proxy variable taken away.
const WITHOUT_PROXY: &str =
    "unset HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy grpc_proxy NODE_USE_ENV_PROXY; ";

fn shell(stack: &Stack, command: &str) -> String {
    let output = stack.exec("programs", &["sh", "-c", &format!("{WITHOUT_PROXY}{command}")]).unwrap();
    assert!(output.status.success(), "{command} ended with {}:\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn with_server(server: impl FnOnce(&Authority) -> Server, test: impl FnOnce(&Stack, &Server, &str)) {
    let authority = Authority::new().unwrap();
    let server = server(&authority);
    let stack = Stack::with_env(&[("SSL_CERT_FILE", &authority.file())]).unwrap();
    let rules = "        access: read-only";
    stack.sandbox("programs", &policy::inspected(server.port(), host::address().unwrap(), rules), &[]).unwrap();
    let url = format!("https://{}:{}", host::ALIAS, server.port());
    test(&stack, &server, &url);
}

#[test]
fn curl() {
    with_server(
        |a| Server::https(a).unwrap(),
        |stack, _, url| {
            let seen = shell(stack, &format!("curl -sS -w '%{{http_code}} %{{ssl_verify_result}}' {url}/repos/x"));
            assert_eq!(seen, "seen GET /repos/x\n200 0");
            let denied = shell(stack, &format!("curl -sS -o /dev/null -w '%{{http_code}}' -X DELETE {url}/repos/x"));
            assert_eq!(denied, "403");
        },
    );
}

#[test]
fn git_clone() {
    let root = scratch().unwrap();
    let root_path = root.path().canonicalize().unwrap();
    let git = |dir: &Path, args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(dir).args(["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]).args(args);
        let output = run(command, b"").unwrap();
        assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
    };
    let work = root_path.join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q"]);
    fs::write(work.join("README"), "hello from the clone\n").unwrap();
    fs::write(work.join("large"), vec![7_u8; 5 << 20]).unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(&root_path, &["clone", "-q", "--bare", "work", "repo.git"]);
    git(&root_path.join("repo.git"), &["update-server-info"]);

    with_server(
        |a| Server::files(a, &root_path).unwrap(),
        |stack, _, url| {
            let seen = shell(stack, &format!("git clone -q {url}/repo.git clone && cat clone/README && wc -c < clone/large"));
            assert!(seen.contains("hello from the clone") && seen.contains("5242880"), "{seen}");
        },
    );
}

#[test]
fn pip_install() {
    let root = scratch().unwrap();
    let root_path = root.path().canonicalize().unwrap();
    let simple = root_path.join("simple/openshell-e2e-wheel");
    fs::create_dir_all(&simple).unwrap();
    let wheel = "openshell_e2e_wheel-1.0-py3-none-any.whl";
    let make = format!(
        "import zipfile\nz = zipfile.ZipFile('{}', 'w')\nd = 'openshell_e2e_wheel-1.0.dist-info/'\nz.writestr('openshell_e2e_wheel.py', 'ANSWER = 42\\n')\n\
         z.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: openshell-e2e-wheel\\nVersion: 1.0\\n')\n\
         z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: e2e\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
         z.writestr(d + 'RECORD', '')\nz.close()",
        simple.join(wheel).display()
    );
    let mut python = Command::new("python3");
    python.args(["-c", &make]);
    assert!(run(python, b"").unwrap().status.success());
    fs::write(simple.join("index.html"), format!("<a href=\"{wheel}\">{wheel}</a>")).unwrap();

    with_server(
        |a| Server::files(a, &root_path).unwrap(),
        |stack, _, url| {
            let seen = shell(
                stack,
                &format!(
                    "/usr/bin/python3 -m venv v && v/bin/pip install -q --disable-pip-version-check --index-url {url}/simple/ openshell-e2e-wheel && \
                     v/bin/python -c 'import openshell_e2e_wheel; print(openshell_e2e_wheel.ANSWER)'"
                ),
            );
            assert!(seen.contains("42"), "{seen}");
        },
    );
}

#[test]
fn python_asyncio() {
    with_server(
        |a| Server::https(a).unwrap(),
        |stack, server, _| {
            let program = format!(
                "import asyncio, ssl\n\
                 async def one(i):\n  r, w = await asyncio.open_connection('{host}', {port}, ssl=ssl.create_default_context())\n  \
                 w.write(f'GET /n/{{i}} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n  \
                 data = await r.read()\n  w.close()\n  return b'200 OK' in data and f'/n/{{i}}'.encode() in data\n\
                 async def main():\n  print(sum(await asyncio.gather(*[one(i) for i in range(50)])))\nasyncio.run(main())",
                host = host::ALIAS,
                port = server.port()
            );
            fs::write(stack.root().join("program.py"), &program).unwrap();
            let output =
                stack.exec_with_input("programs", &["sh", "-c", &format!("{WITHOUT_PROXY}exec python3 -")], program.as_bytes()).unwrap();
            assert_eq!(text(&output.stdout).trim(), "50", "{}", text(&output.stderr));
        },
    );
}

#[test]
fn a_shell_over_connect() {
    let stack = Stack::start().unwrap();
    stack.sandbox("shell", policy::FILESYSTEM, &[]).unwrap();
    let openshell = openshell_e2e::bins::path("openshell").unwrap();
    let mut command = Command::new("script");
    command.envs(stack.env()).args(["-q", "-e", "-c", &format!("{} sandbox connect shell", openshell.display()), "/dev/null"]);
    let output = run(command, b"tty && stty size && echo \"answer: $((6 * 7))\"\nexit 5\n").unwrap();
    let seen = text(&output.stdout);
    assert!(seen.contains("/dev/pts/") && seen.contains("answer: 42"), "{seen}");
    assert_eq!(output.status.code(), Some(5), "{seen}");
}

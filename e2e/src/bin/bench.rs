//! Measures what `docs/SPECIFICATION.md` promises, each row beside a baseline of the same run.
//!
//! `make bench` builds the release binaries first. Figures are medians (p50) unless a row says
//! otherwise; a ratio compares with the baseline named in the row. Exit code 0 whatever the
//! figures: a bench reports, the table in the specification promises.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use openshell_e2e::{Server, Stack, host, policy, server::Authority, stack::run};
use openshell_proto::{
    datamodel::{WorkspaceSelector, workspace_selector::Selection},
    v1::{self, open_shell_client::OpenShellClient},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

type Client = OpenShellClient<Channel>;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(bench()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let server = Server::https(&authority)?;
    let stack = Stack::with_env(&[("SSL_CERT_FILE", &authority.file())])?;
    let mut client = connect(&stack).await?;
    let gateway = stack.gateway_pid().context("the gateway's process")?;
    let idle = rss(gateway)?;
    println!("{:<62} {:>12} {:>12} {:>9}", "row", "measured", "baseline", "ratio");

    let spawn = spawn_floor()?;
    let bare = bare_to_running(40)?;
    let waiting = spare(&stack)?.map(family_memory).unwrap_or_default();
    let running = create_to_running(&mut client, 40, Pace::AtRest).await?;
    row("create -> main process running, p50 (the same program, bare)", running.p50(), bare.p50());
    row("create -> main process running, p99 (the same program, bare)", running.p99(), bare.p99());
    let running = create_to_running(&mut client, 20, Pace::RightAfterAnother).await?;
    row("the same right after another creation, p50", running.p50(), bare.p50());
    let deleted = delete_acknowledged(&mut client, 40).await?;
    row("delete acknowledged, p50 (health call)", deleted.p50(), health(&mut client, 200).await?.p50());

    let rules = "        access: read-only";
    let text = policy::inspected(server.port(), host::address()?, rules);
    stack.sandbox("bench", &text, &[])?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let supervisor = stack.supervisors().first().map(|pid| supervisor_memory(*pid)).transpose()?.unwrap_or_default();
    let exec = exec_round_trip(&mut client, 200).await?;
    row("exec of /bin/true, p50 (bare spawn)", exec.p50(), spawn.p50());
    let through_cli = cli(&stack, &["sandbox", "exec", "--name", "bench", "--no-tty", "--", "/bin/true"], 40)?;
    row("openshell sandbox exec -- /bin/true, p50 (openshell --version)", through_cli.p50(), cli(&stack, &["--version"], 40)?.p50());
    let acknowledged = policy_change(&mut client, &text, 40).await?;
    row("policy change -> acknowledged, p50 (health call)", acknowledged.p50(), health(&mut client, 200).await?.p50());
    row("policy change -> acknowledged, p99 (health call)", acknowledged.p99(), health(&mut client, 200).await?.p99());

    let inside = requests(&stack, &server, true)?;
    let outside = requests(&stack, &server, false)?;
    row("inspected request, warm connection, p50 (direct)", inside.p50(), outside.p50());
    row("inspected request, warm connection, p99 (direct)", inside.p99(), outside.p99());
    println!("{:<62} {:>9} us", "  added by inspection, p50", (inside.p50().saturating_sub(outside.p50())).as_micros());

    memory("gateway, no sandbox (RSS)", idle);
    memory("gateway, after everything above, 1 sandbox (RSS)", rss(gateway)?);
    memory("supervisor that waits for the next sandbox (PSS)", waiting);
    memory("supervisor with guardian and launcher, idle (PSS)", supervisor);
    for pid in stack.supervisors() {
        memory("supervisor with guardian and launcher, after 2200 requests (PSS)", supervisor_memory(pid)?);
    }
    Ok(())
}

/// Durations of one row.
struct Sample(Vec<Duration>);

impl Sample {
    /// The value that `percent` of the sample do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let index = (percent * sorted.len().saturating_sub(1)).div_ceil(100);
        sorted.get(index).copied().unwrap_or_default()
    }

    fn p50(&self) -> Duration {
        self.percentile(50)
    }

    fn p99(&self) -> Duration {
        self.percentile(99)
    }
}

fn row(name: &str, measured: Duration, baseline: Duration) {
    let ratio = measured.as_secs_f64() / baseline.as_secs_f64().max(1e-9);
    println!("{name:<62} {:>9} us {:>9} us {ratio:>8.1}x", measured.as_micros(), baseline.as_micros());
}

fn memory(name: &str, kib: u64) {
    println!("{name:<62} {kib:>9} KiB");
}

async fn connect(stack: &Stack) -> anyhow::Result<Client> {
    let bundle = stack.root().join("config/openshell/gateways/openshell/mtls");
    let read = |name: &str| fs::read(bundle.join(name)).with_context(|| format!("reading {name}"));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")?))
        .identity(Identity::from_pem(read("tls.crt")?, read("tls.key")?))
        .domain_name("localhost");
    let channel = Channel::from_shared(format!("https://127.0.0.1:{}", stack.port()))?.tls_config(tls)?.tcp_nodelay(true).connect().await?;
    Ok(OpenShellClient::new(channel))
}

fn workspace() -> WorkspaceSelector {
    WorkspaceSelector { selection: Some(Selection::Workspace("default".to_owned())) }
}

fn spawn_floor() -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        Command::new("/bin/true").status()?;
        sample.push(start.elapsed());
    }
    Ok(Sample(sample))
}

async fn health(client: &mut Client, times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        client.health(v1::HealthRequest {}).await?;
        sample.push(start.elapsed());
    }
    Ok(Sample(sample))
}

/// A program that says when it runs, by its own clock.
const CLOCK: [&str; 2] = ["/bin/date", "+%s%N"];

fn now() -> anyhow::Result<Duration> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?)
}

/// From spawning the program to what it says.
fn bare_to_running(times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for _ in 0..times {
        let started = now()?;
        let mut child = Command::new(CLOCK[0]).args(&CLOCK[1..]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("standard output")?).read_line(&mut line)?;
        sample.push(Duration::from_nanos(line.trim().parse()?).saturating_sub(started));
        child.wait()?;
    }
    Ok(Sample(sample))
}

/// When a creation comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Half a second after the last one is gone.
    AtRest,
    /// A tenth of a second after another: no supervisor waits yet.
    RightAfterAnother,
}

/// From the create call to the moment the main process says that it runs.
async fn create_to_running(client: &mut Client, times: usize, pace: Pace) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for i in 0..times {
        let mut names = vec![format!("run-{i}")];
        if pace == Pace::RightAfterAnother {
            names.insert(0, format!("first-{i}"));
        }
        let mut started = Duration::default();
        for name in &names {
            let spec = v1::SandboxSpec { command: CLOCK.map(str::to_owned).to_vec(), ..Default::default() };
            started = now()?;
            let request =
                v1::CreateSandboxRequest { name: name.clone(), spec: Some(spec), workspace_scope: Some(workspace()), ..Default::default() };
            client.create_sandbox(request).await?;
            // It says when it ran: asking before it has only takes time from it.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let printed = first_line(client, names.last().context("a sandbox")?).await?;
        sample.push(Duration::from_nanos(printed.trim().parse()?).saturating_sub(started));
        for name in names {
            client
                .delete_sandbox(v1::DeleteSandboxRequest { name: name.clone(), workspace_scope: Some(workspace()), ..Default::default() })
                .await?;
            gone(client, &name).await?;
        }
    }
    Ok(Sample(sample))
}

async fn gone(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let request = v1::GetSandboxRequest { name: name.to_owned(), workspace_scope: Some(workspace()) };
        match client.get_sandbox(request).await {
            Err(status) if status.code() == tonic::Code::NotFound => break,
            answer => drop(answer?),
        }
        ensure!(Instant::now() < deadline, "{name} did not go");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its directory is removed after it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// The first line of standard output that the main process wrote.
async fn first_line(client: &mut Client, name: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        ensure!(Instant::now() < deadline, "{name} printed nothing");
        let logs = client
            .get_sandbox_logs(v1::GetSandboxLogsRequest {
                sandbox: name.to_owned(),
                lines: 100,
                workspace_scope: Some(workspace()),
                ..Default::default()
            })
            .await?
            .into_inner()
            .logs;
        if let Some(line) = logs.into_iter().find(|line| line.target == "stdout") {
            return Ok(line.message);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn delete_acknowledged(client: &mut Client, times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for i in 0..times {
        let name = format!("del-{i}");
        client
            .create_sandbox(v1::CreateSandboxRequest {
                name: name.clone(),
                spec: Some(v1::SandboxSpec::default()),
                workspace_scope: Some(workspace()),
                ..Default::default()
            })
            .await?;
        ready(client, &name).await?;
        let start = Instant::now();
        client.delete_sandbox(v1::DeleteSandboxRequest { name, workspace_scope: Some(workspace()), ..Default::default() }).await?;
        sample.push(start.elapsed());
    }
    Ok(Sample(sample))
}

async fn ready(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let sandbox = client
            .get_sandbox(v1::GetSandboxRequest { name: name.to_owned(), workspace_scope: Some(workspace()) })
            .await?
            .into_inner()
            .sandbox
            .unwrap_or_default();
        if sandbox.status.is_some_and(|status| status.phase == v1::SandboxPhase::Ready as i32) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{name} did not become ready");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn exec_round_trip(client: &mut Client, times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        let mut events = client
            .exec_sandbox(v1::ExecSandboxRequest {
                sandbox: "bench".to_owned(),
                command: vec!["/bin/true".to_owned()],
                workspace_scope: Some(workspace()),
                ..Default::default()
            })
            .await?
            .into_inner();
        while events.message().await?.is_some() {}
        sample.push(start.elapsed());
    }
    Ok(Sample(sample))
}

/// A whole run of the command line.
fn cli(stack: &Stack, args: &[&str], times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for _ in 0..times {
        let mut command = stack.command(args)?;
        command.stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        sample.push(start.elapsed());
        ensure!(status.success(), "openshell {args:?} ended with {status}");
    }
    Ok(Sample(sample))
}

/// From the update call to the moment the supervisor's acknowledgement is visible.
async fn policy_change(client: &mut Client, text: &str, times: usize) -> anyhow::Result<Sample> {
    let mut sample = Vec::new();
    for i in 0..times {
        let changed = text.replace("access: read-only", if i % 2 == 0 { "access: read-write" } else { "access: read-only" });
        let policy = openshell_policy::from_yaml(&changed)?;
        let start = Instant::now();
        let version = client
            .update_config(v1::UpdateConfigRequest {
                sandbox: "bench".to_owned(),
                policy: Some(openshell_proto::policy::to_wire(&policy)),
                workspace_scope: Some(workspace()),
                ..Default::default()
            })
            .await?
            .into_inner()
            .version;
        loop {
            let status = client
                .get_sandbox_policy_status(v1::GetSandboxPolicyStatusRequest {
                    sandbox: "bench".to_owned(),
                    version,
                    workspace_scope: Some(workspace()),
                    ..Default::default()
                })
                .await?
                .into_inner();
            if status.active_version >= version {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "revision {version} was not acknowledged");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        sample.push(start.elapsed());
    }
    Ok(Sample(sample))
}

/// Requests on one warm connection, timed by the client: inside the sandbox, and bare.
fn requests(stack: &Stack, server: &Server, inside: bool) -> anyhow::Result<Sample> {
    let (name, verify) = if inside {
        (host::ALIAS.to_owned(), "ssl.create_default_context()")
    } else {
        (host::address()?.to_string(), "ssl._create_unverified_context()")
    };
    let program = format!(
        "import http.client, ssl, socket, time\nc = http.client.HTTPSConnection('{name}', {}, context={verify})\nc.connect()\n\
         c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n\
         for i in range(2200):\n  t = time.perf_counter_ns()\n  c.request('GET', '/x'); r = c.getresponse(); r.read()\n  d = time.perf_counter_ns() - t\n  \
         if i >= 200: print(d)\n",
        server.port()
    );
    let mut command = if inside {
        stack.command(["sandbox", "exec", "--name", "bench", "--no-tty", "--", "python3", "-c", &program])?
    } else {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", &program]);
        command
    };
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let mut sample = Vec::new();
    for line in BufReader::new(child.stdout.take().context("standard output")?).lines() {
        sample.push(Duration::from_nanos(line?.trim().parse()?));
    }
    ensure!(child.wait()?.success() && sample.len() == 2000, "the client made {} of 2000 requests", sample.len());
    std::io::stdout().flush()?;
    Ok(Sample(sample))
}

fn rss(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a figure")?.parse()?)
}

fn pss(pid: u32) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("Pss")?;
    Ok(line.split_whitespace().nth(1).context("a figure")?.parse()?)
}

/// A guardian's memory and that of what belongs to it.
fn supervisor_memory(guardian: rustix::process::Pid) -> anyhow::Result<u64> {
    Ok(family_memory(u32::try_from(guardian.as_raw_nonzero().get())?))
}

/// Memory of a process and its descendants, with what they share counted once.
fn family_memory(root: u32) -> u64 {
    family(root).into_iter().map(|pid| pss(pid).unwrap_or_default()).sum()
}

/// The supervisor that waits for the next sandbox.
fn spare(stack: &Stack) -> anyhow::Result<Option<u32>> {
    let place = format!("{}/sandboxes/.spare-", stack.state().display());
    let of = |entry: fs::DirEntry| {
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        command.split('\0').any(|word| word.starts_with(&place)).then_some(pid)
    };
    // The guardian is the oldest of them.
    Ok(fs::read_dir("/proc")?.flatten().filter_map(of).min())
}

/// A process and its descendants that are `openshell-sandbox`.
fn family(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let mut pgrep = Command::new("pgrep");
        pgrep.args(["-P", &pid.to_string(), "-f", "openshell-sandbox"]);
        if let Ok(output) = run(pgrep, b"") {
            found.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    found
}

//! The escape suite: one program per attack (`e2e/escape/attack.c`), run in a real sandbox.
//!
//! Every attack names the walls that stop it, each by itself. It is run with all walls up
//! (stopped), with all of its walls taken down (it gets out, so the attack is a real one), and
//! once for each wall with only that one left up (stopped, so the wall is a real one). Walls come down only in a
//! supervisor built with the cargo feature `ablation`, which a release build refuses.
//!
//! Where somebody outside can tell, they are the witness, not the attack itself.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsFd as _, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use openshell_e2e::{
    Stack, host, policy,
    report::Report,
    stack::{open_scratch, run, text},
};
use rustix::process::{Pid, Signal, kill_process};

/// Something that can be taken down as one: its switches in `OPENSHELL_ABLATE`.
struct Wall {
    name: &'static str,
    switches: &'static [&'static str],
}

const BROKER: Wall = Wall { name: "broker", switches: &["notify-filter", "broker-decision"] };
const LANDLOCK_NET: Wall = Wall { name: "Landlock network", switches: &["landlock-net"] };
const LANDLOCK_FS: Wall = Wall { name: "Landlock filesystem", switches: &["landlock-fs"] };
const LANDLOCK_SCOPE: Wall = Wall { name: "Landlock scope", switches: &["landlock-scope"] };
const NETNS: Wall = Wall { name: "network namespace", switches: &["netns"] };
const MOUNTNS: Wall = Wall { name: "mount namespace", switches: &["mountns"] };
const PIDNS: Wall = Wall { name: "PID namespace", switches: &["pidns"] };
const FAMILIES: Wall = Wall { name: "family filter", switches: &["family-filter"] };
const IO_URING: Wall = Wall { name: "io_uring filter", switches: &["deny-filter-io_uring"] };
const FASTOPEN: Wall = Wall { name: "fast open filter", switches: &["fastopen-filter"] };
const TO_LOOPBACK: Wall = Wall { name: "bound to loopback", switches: &["bindtodevice"] };
const DESCRIPTORS: Wall = Wall { name: "descriptor check", switches: &["fd-inheritance"] };
const CAPABILITIES: Wall = Wall { name: "capabilities dropped", switches: &["caps-drop"] };
const RUN_AS: Wall = Wall { name: "user of its own", switches: &["run-as"] };
const UNIX_PATH: Wall = Wall { name: "UNIX path check", switches: &["unix-path-check"] };
const PRIVATE_LOOPBACK: Wall = Wall { name: "private loopback", switches: &["private-loopback"] };
const GUARDIAN: Wall = Wall { name: "guardian", switches: &["guardian"] };
const CONTROL: Wall = Wall { name: "control process", switches: &["control"] };

/// One attack.
struct Attack {
    name: &'static str,
    /// Each stops it by itself.
    walls: &'static [&'static Wall],
    /// Switches that are down in every run: they stand beside these walls and would hide them.
    aside: &'static [&'static str],
    run: fn(&Field) -> anyhow::Result<bool>,
}

const ATTACKS: &[Attack] = &[
    Attack { name: "direct connect over IPv4", walls: &[&BROKER, &LANDLOCK_NET, &NETNS], aside: &[], run: |f| f.network("direct4") },
    Attack { name: "direct connect over IPv6", walls: &[&BROKER, &LANDLOCK_NET, &NETNS], aside: &[], run: |f| f.network("direct6") },
    Attack {
        name: "direct connect to a mapped address",
        walls: &[&BROKER, &LANDLOCK_NET, &NETNS],
        aside: &[],
        run: |f| f.network("mapped"),
    },
    Attack { name: "UDP, every way of addressing it", walls: &[&BROKER, &NETNS], aside: &[], run: |f| f.network("udp") },
    Attack { name: "DNS to another server", walls: &[&BROKER, &NETNS], aside: &[], run: |f| f.network("dns") },
    Attack { name: "raw sockets", walls: &[&CAPABILITIES, &RUN_AS, &BROKER], aside: &[], run: |f| f.by_itself(&["raw"]) },
    Attack { name: "packet sockets", walls: &[&CAPABILITIES, &RUN_AS, &FAMILIES], aside: &[], run: |f| f.by_itself(&["packet"]) },
    Attack { name: "io_uring", walls: &[&IO_URING, &LANDLOCK_NET, &NETNS], aside: &[], run: |f| f.network("uring") },
    Attack { name: "TCP fast open", walls: &[&FASTOPEN, &TO_LOOPBACK, &NETNS], aside: &["landlock-net"], run: |f| f.network("fastopen") },
    Attack { name: "an inherited descriptor", walls: &[&DESCRIPTORS], aside: &[], run: Field::inherited },
    Attack { name: "a descriptor passed over a UNIX socket", walls: &[&UNIX_PATH, &MOUNTNS], aside: &[], run: Field::passed },
    Attack { name: "a race on the address", walls: &[&BROKER, &LANDLOCK_NET, &NETNS], aside: &[], run: Field::race },
    Attack { name: "a race on the address family", walls: &[&BROKER, &LANDLOCK_NET, &NETNS], aside: &[], run: |f| f.network("family") },
    Attack {
        name: "the supervisor by /proc and ptrace",
        walls: &[&PIDNS, &RUN_AS, &CAPABILITIES],
        aside: &["dumpable", "deny-filter-ptrace"],
        run: Field::supervisor,
    },
    Attack { name: "a write through a symlink", walls: &[&LANDLOCK_FS, &RUN_AS], aside: &["caps-drop"], run: Field::link },
    Attack { name: "a service on the host's loopback", walls: &[&BROKER, &LANDLOCK_NET, &NETNS], aside: &[], run: Field::loopback },
    Attack { name: "another sandbox's listener", walls: &[&PRIVATE_LOOPBACK, &NETNS], aside: &[], run: Field::neighbour },
    Attack { name: "a UNIX socket of a host service by path", walls: &[&UNIX_PATH, &MOUNTNS], aside: &[], run: Field::unix },
    Attack {
        name: "an abstract UNIX socket of a host service",
        walls: &[&BROKER, &LANDLOCK_SCOPE, &NETNS],
        aside: &[],
        run: Field::abstract_unix,
    },
    Attack { name: "a daemon that outlives its supervisor", walls: &[&GUARDIAN, &CONTROL, &PIDNS], aside: &[], run: Field::daemon },
];

fn main() -> ExitCode {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let attack = match build() {
        Ok(attack) => attack,
        Err(error) => {
            eprintln!("escape: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    for entry in ATTACKS.iter().filter(|attack| only.is_empty() || only.iter().any(|name| attack.name.contains(name.as_str()))) {
        let names: Vec<_> = entry.walls.iter().map(|wall| wall.name).collect();
        println!("{} (walls: {})", entry.name, names.join(", "));
        report.step("all walls up: stopped", || verdict(entry, &attack, &BTreeSet::new(), false));
        let all: BTreeSet<&str> = entry.walls.iter().flat_map(|wall| wall.switches).chain(entry.aside).copied().collect();
        report.step("all of its walls down: out", || verdict(entry, &attack, &all, true));
        for left in entry.walls {
            let down = all.iter().filter(|switch| !left.switches.contains(switch)).copied().collect();
            report.step(&format!("only {}: stopped", left.name), || verdict(entry, &attack, &down, false));
        }
    }
    report.finish()
}

fn build() -> anyhow::Result<tempfile::TempPath> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("escape/attack.c");
    let (_, program) = tempfile::NamedTempFile::new_in("/var/tmp")?.into_parts();
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-pthread", "-static", "-o"]).arg(&program).arg(source);
    let output = run(cc, b"")?;
    ensure!(output.status.success(), "the attacks do not compile: {}", text(&output.stderr));
    Ok(program)
}

fn verdict(attack: &Attack, program: &Path, down: &BTreeSet<&str>, out: bool) -> anyhow::Result<String> {
    let field = Field::new(program, down)?;
    let got_out = (attack.run)(&field)?;
    ensure!(got_out == out, "{}: {}", if got_out { "it got out" } else { "it was stopped" }, field.said.borrow());
    Ok(field.said.borrow().trim().replace('\n', "; "))
}

/// A gateway whose supervisors lack some walls, a sandbox in it, and the attacks' program there.
struct Field {
    stack: Stack,
    said: std::cell::RefCell<String>,
    allowed: Witness,
    /// Connected to by a socket that the gateway's starter left open, as a careless one would.
    inherited: Witness,
    _left_open: std::net::TcpStream,
}

impl Field {
    fn new(program: &Path, down: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let supervisor = std::env::var("OPENSHELL_ABLATION_SUPERVISOR").context("OPENSHELL_ABLATION_SUPERVISOR: run scripts/escape")?;
        let list = down.iter().copied().collect::<Vec<_>>().join(",");
        let inherited = Witness::tcp(host::address()?.into(), "forbidden")?;
        let left_open = std::net::TcpStream::connect((host::address()?, inherited.port()))?;
        rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty())?;
        let stack = Stack::below(open_scratch()?, &[("OPENSHELL_SUPERVISOR_BIN", &supervisor), ("OPENSHELL_ABLATE", &list)])?;
        let allowed = Witness::tcp(host::address()?.into(), "allowed")?;
        if host::is_root() {
            // A root gateway's state is closed; without a mount namespace the agent walks through it.
            for directory in [stack.root().join("state"), stack.state()] {
                fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
            }
        }
        let field = Self { stack, said: String::new().into(), allowed, inherited, _left_open: left_open };
        field.sandbox("field", program)?;
        Ok(field)
    }

    fn sandbox(&self, name: &str, program: &Path) -> anyhow::Result<()> {
        self.stack.sandbox(name, &policy::connection(self.allowed.port(), host::address()?), &[])?;
        let output = self.stack.exec_with_input(name, &["sh", "-c", "cat > attack && chmod 755 attack"], &fs::read(program)?)?;
        ensure!(output.status.success(), "installing the attacks: {}", text(&output.stderr));
        Ok(())
    }

    /// Runs the program; its own opinion is whether it got out.
    fn attack(&self, args: &[&str]) -> anyhow::Result<bool> {
        let mut command = vec!["./attack"];
        command.extend_from_slice(args);
        let output = self.stack.exec("field", &command)?;
        let said = text(&output.stdout) + &text(&output.stderr);
        self.said.replace(said);
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            // Killed by the architecture filter, or the launcher refused: it did not get out.
            Some(code) if code >= 128 => Ok(false),
            other => bail!("the attack ended with {other:?}: {}", self.said.borrow()),
        }
    }

    fn by_itself(&self, args: &[&str]) -> anyhow::Result<bool> {
        self.attack(args)
    }

    /// Attacks a server on this machine's address; the server is the witness.
    fn network(&self, attack: &str) -> anyhow::Result<bool> {
        let address: IpAddr = if attack == "direct6" { ipv6()?.into() } else { host::address()?.into() };
        let witness = if matches!(attack, "udp" | "dns") { Witness::udp_and_tcp(address)? } else { Witness::tcp(address, "forbidden")? };
        self.attack(&[attack, &address.to_string(), &witness.port().to_string()])?;
        Ok(witness.saw())
    }

    fn inherited(&self) -> anyhow::Result<bool> {
        self.attack(&["inherited"])?;
        Ok(self.inherited.saw())
    }

    fn race(&self) -> anyhow::Result<bool> {
        let witness = Witness::tcp(host::address()?.into(), "forbidden")?;
        let address = host::address()?.to_string();
        self.attack(&["race", &address, &self.allowed.port().to_string(), &address, &witness.port().to_string()])?;
        Ok(witness.saw())
    }

    fn loopback(&self) -> anyhow::Result<bool> {
        let witness = Witness::tcp(IpAddr::from([127, 0, 0, 1]), "forbidden")?;
        self.attack(&["loopback", &witness.port().to_string()])?;
        Ok(witness.saw())
    }

    /// A second sandbox listens on what it takes for 127.0.0.1; the first one looks for it.
    fn neighbour(&self) -> anyhow::Result<bool> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        self.stack.sandbox("neighbour", policy::FILESYSTEM, &[])?;
        let program = format!(
            "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', {port}))\ns.listen(8)\nprint('listening', flush=True)\ns.settimeout(20)\n\
             try:\n  c, _ = s.accept()\n  print('got', c.recv(16), flush=True)\nexcept OSError as e:\n  print('nobody', e, flush=True)"
        );
        let mut child = self
            .stack
            .command(["sandbox", "exec", "--name", "neighbour", "--no-tty", "--", "python3", "-u", "-c", &program])?
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut out = child.stdout.take().context("standard output")?;
        let mut first = [0; 10];
        out.read_exact(&mut first)?;
        let out_there = self.attack(&["loopback", &port.to_string()])?;
        child.kill()?;
        child.wait()?;
        Ok(out_there)
    }

    fn passed(&self) -> anyhow::Result<bool> {
        let witness = Witness::tcp(host::address()?.into(), "forbidden")?;
        let target = SocketAddr::new(host::address()?.into(), witness.port());
        let path = std::env::temp_dir().join(format!("openshell-helper-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = open_to_all(&path)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(gift) = std::net::TcpStream::connect(target) else { return };
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
                let fds = [gift.as_fd()];
                control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
                let _ = rustix::net::sendmsg(&stream, &[std::io::IoSlice::new(b"x")], &mut control, rustix::net::SendFlags::empty());
            }
        });
        let got_out = self.attack(&["passed", &path.display().to_string()]);
        let _ = fs::remove_file(&path);
        got_out?;
        Ok(witness.saw())
    }

    fn unix(&self) -> anyhow::Result<bool> {
        let path = std::env::temp_dir().join(format!("openshell-service-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        let witness = Witness::unix(open_to_all(&path)?);
        let got_out = self.attack(&["unix", &path.display().to_string()]);
        let _ = fs::remove_file(&path);
        got_out?;
        Ok(witness.saw())
    }

    fn abstract_unix(&self) -> anyhow::Result<bool> {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("openshell-service-{}-{}", std::process::id(), self.stack.port());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        let witness = Witness::unix(UnixListener::bind_addr(&address)?);
        self.attack(&["unix", &format!("@{name}")])?;
        Ok(witness.saw())
    }

    fn supervisor(&self) -> anyhow::Result<bool> {
        let guardian = *self.stack.supervisors().first().context("a supervisor is recorded")?;
        let supervisor = *children(guardian).first().context("the supervisor below its guardian")?;
        let mut ids = vec![guardian, supervisor];
        ids.extend(children(supervisor));
        let ids: Vec<String> = ids.into_iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
        let mut args = vec!["supervisor"];
        args.extend(ids.iter().map(String::as_str));
        self.attack(&args)
    }

    fn link(&self) -> anyhow::Result<bool> {
        let directory = open_scratch()?;
        let target = directory.path().join("target");
        fs::write(&target, "untouched")?;
        self.attack(&["link", &target.display().to_string()])?;
        Ok(fs::read_to_string(&target)? != "untouched")
    }

    /// The supervisor is killed; what the agent left behind must end with it.
    fn daemon(&self) -> anyhow::Result<bool> {
        let marker = format!("left-{}-{:?}", std::process::id(), Instant::now()).replace(|c: char| !c.is_ascii_alphanumeric(), "");
        self.attack(&["daemon", &marker])?;
        ensure!(!marked(&marker).is_empty(), "the daemon does not run");
        let guardian = *self.stack.supervisors().first().context("a supervisor is recorded")?;
        let supervisor = children(guardian).into_iter().next().context("the supervisor below its guardian")?;
        kill_process(supervisor, Signal::KILL)?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while !marked(&marker).is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let left = marked(&marker);
        for pid in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        self.said.borrow_mut().push_str(if left.is_empty() { "it ended with its supervisor" } else { "it outlived its supervisor" });
        Ok(!left.is_empty())
    }
}

/// A UNIX listener that every user may connect to.
fn open_to_all(path: &PathBuf) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

/// Somebody outside who must not be reached. Counts who was.
struct Witness {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Witness {
    /// Answers every connection that sends something with a word.
    fn tcp(address: IpAddr, word: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let witness = Self { port: listener.local_addr()?.port(), seen: Arc::default() };
        let seen = Arc::clone(&witness.seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || answer(stream, word, &seen));
            }
        });
        Ok(witness)
    }

    fn udp_and_tcp(address: IpAddr) -> anyhow::Result<Self> {
        let witness = Self::tcp(address, "forbidden")?;
        let socket = UdpSocket::bind((address, witness.port))?;
        let seen = Arc::clone(&witness.seen);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while socket.recv(&mut buffer).is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(witness)
    }

    fn unix(listener: UnixListener) -> Self {
        let witness = Self { port: 0, seen: Arc::default() };
        let seen = Arc::clone(&witness.seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || answer(stream, "forbidden", &seen));
            }
        });
        witness
    }

    fn port(&self) -> u16 {
        self.port
    }

    /// Whether anything from the sandbox arrived.
    fn saw(&self) -> bool {
        thread::sleep(Duration::from_millis(150));
        self.seen.load(Ordering::SeqCst) > 0
    }
}

/// Counts a connection that brought bytes and answers it.
fn answer(mut stream: impl std::io::Read + std::io::Write, word: &str, seen: &AtomicUsize) {
    let mut buffer = [0; 512];
    if stream.read(&mut buffer).is_ok_and(|n| n > 0) {
        seen.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(word.as_bytes());
    }
}

/// An IPv6 address of this machine that is not loopback.
fn ipv6() -> anyhow::Result<Ipv6Addr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect("[2001:db8::1]:9").or_else(|_| socket.connect("[fd00::1]:9"))?;
    match socket.local_addr()?.ip() {
        IpAddr::V6(address) if !address.is_loopback() => Ok(address),
        other => bail!("this machine has no IPv6 address but {other}"),
    }
}

fn marked(marker: &str) -> Vec<Pid> {
    pids()
        .filter(|pid| fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| text(&line).contains(marker)))
        .collect()
}

fn children(of: Pid) -> Vec<Pid> {
    let parent = of.as_raw_nonzero().get().to_string();
    pids()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                .is_ok_and(|stat| stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(parent.as_str()))
        })
        .collect()
}

fn pids() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

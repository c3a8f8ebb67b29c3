//! What a process inside is, sees and may do.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    harness::{Case, Has, Sandbox, Setting, User, server},
    helper::Also,
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a program runs and its exit code is the sandbox's", exit_code),
    ("the limit of descriptors is the agent's own", descriptors),
    ("every capability is gone and none comes back", capabilities),
    ("files are what the policy grants", files),
    ("a write through a link stays inside", links),
    ("tmp is the sandbox's own", private_tmp),
    ("a grant of /tmp does not open /var/tmp, nor the other way round", one_tmp_only),
    ("other processes are out of sight and reach", processes),
    ("the supervisor cannot be looked into or killed", supervisor),
    ("namespaces, rings and other doors are closed", doors),
    ("shared memory of the host is out of reach", shared_memory),
    ("a socket as standard input is refused", socket_as_input),
    ("nothing but the standard streams is inherited", inherited),
    ("a grant over a protected path is refused", protected),
    ("a workspace below a closed directory", closed),
    ("an unknown program is a clear error", unknown_program),
    ("a daemon does not outlive a killed supervisor", daemon),
    ("nothing outlives a killed guardian", guardian),
    ("nothing outlives a guardian and a launcher killed together", guardian_and_launcher),
    ("a killed launcher ends the sandbox", launcher),
];

fn exit_code(setting: Setting) {
    let outcome = Sandbox::new(&["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]).set(setting).run();
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
    let outcome = Sandbox::new(&["/bin/sh", "-c", "kill -TERM $$"]).set(setting).run();
    assert_eq!(outcome.code, 128 + 15);
    let level = match setting.namespaces {
        Has::All => "\"level\":\"full\"",
        Has::None => "\"level\":\"reduced\"",
    };
    outcome.logged(level);
}

fn descriptors(setting: Setting) {
    const SOFT: u64 = 777;
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let program = format!("import resource; assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == {SOFT}");
    let mut sandbox = Sandbox::python(&program).set(setting);
    sandbox.descriptors = Some(SOFT);
    let supervisors = hard.map_or("null".to_owned(), |hard| hard.to_string());
    sandbox.run().ok().logged(&format!("{{\"descriptors\":{supervisors}}}"));
}

fn capabilities(setting: Setting) {
    Sandbox::python(
        "
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
for name in ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']: assert int(status[name], 16) == 0, (name, status[name])
assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2', status
assert os.getuid() != 0 and os.geteuid() != 0
for change in [os.setuid, os.setgid, os.seteuid]:
    # Root does not even exist in a user namespace that maps one user.
    try: change(0); raise SystemExit('root came back')
    except OSError as e: assert e.errno in (errno.EPERM, errno.EINVAL), e
import resource
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
",
    )
    .set(setting)
    .run()
    .ok();
}

fn files(setting: Setting) {
    Sandbox::python(
        "
open('mine', 'w').write('x'); os.mkdir('d'); os.rename('mine', 'd/mine'); os.truncate('d/mine', 0)
assert open('/etc/passwd').read()
for path in ['/etc/passwd', '/usr/x', '/var/x', '/x']: expect(errno.EACCES, lambda: open(path, 'a'))
for path in ['/root', '/home', '/var/log', '/boot', '/']: expect(errno.EACCES, lambda: os.listdir(path))
",
    )
    .set(setting)
    .run()
    .ok();
}

fn links(setting: Setting) {
    let outside = tempfile::Builder::new().prefix("openshell-outside-").tempdir_in("/var/tmp").unwrap();
    let target = outside.path().join("target");
    fs::write(&target, "untouched").unwrap();
    for path in [outside.path(), &target] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let program = format!(
        "
target = {:?}
os.symlink(target, 'link')
for path in ['link', '/proc/self/cwd/link', '/proc/self/root' + target]:
    try: open(path, 'w').write('changed')
    except OSError: pass
try: os.link(target, 'hard'); open('hard', 'w').write('changed')
except OSError: pass
",
        target.to_str().unwrap()
    );
    Sandbox::python(&program).set(setting).run().ok();
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

fn private_tmp(setting: Setting) {
    let shared = tempfile::Builder::new().prefix("openshell-shared-").tempfile_in("/tmp").unwrap();
    fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let sandbox = Sandbox::python(&format!(
        "
import tempfile
open(TMP + '/mine', 'w').write('x'); tempfile.TemporaryFile()
try: open({:?}).read(); raise SystemExit('read')
except OSError as e: assert e.errno in (errno.ENOENT, errno.EACCES), e
",
        shared.path().to_str().unwrap()
    ))
    .set(setting);
    let mine = sandbox.directory.path().join("tmp/mine");
    let outcome = sandbox.start().wait_with_output().unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(fs::read_to_string(mine).unwrap(), "x");
}

fn one_tmp_only(setting: Setting) {
    let shared = ["/tmp", "/var/tmp"];
    let hosts = shared.map(|directory| {
        let file = tempfile::Builder::new().prefix("openshell-shared-").tempfile_in(directory).unwrap();
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        file
    });
    let hosts = hosts.each_ref().map(|file| file.path().to_str().unwrap());
    for granted in [&shared[..1], &shared[1..], &shared[..]] {
        // Without a mount namespace both are replaced by the sandbox's own directory.
        let open = if setting.namespaces == Has::All { granted } else { &[] };
        let program = format!(
            "
open_ones = {open:?}
for host in {hosts:?}:
    try: open(host, 'r+'); raise SystemExit('the host\\'s ' + host)
    except OSError as e: assert e.errno in (errno.ENOENT, errno.EACCES), e
for directory in ['/tmp', '/var/tmp']:
    name = directory + '/mine'
    if directory in open_ones:
        assert not os.path.exists(name), 'there already: ' + name
        open(name, 'x').write('x'); assert os.listdir(directory).count('mine') == 1
    else:
        for call in [lambda: open(name, 'w'), lambda: os.listdir(directory)]: expect(errno.EACCES, call)
"
        );
        let mut sandbox = Sandbox::python(&program).set(setting);
        sandbox.plan.domain.read_write = granted.iter().copied().chain(["/dev/null"]).map(Into::into).collect();
        sandbox.run().ok();
    }
}

fn processes(setting: Setting) {
    let own = std::process::id();
    let program = format!(
        "
outside = {own}
expect(errno.ESRCH if {pidns} else errno.EPERM, lambda: os.kill(outside, 0))
if {pidns}: assert sum(name.isdigit() for name in os.listdir('/proc')) < 8, os.listdir('/proc')
child = subprocess.Popen(['/bin/sleep', '60']); child.kill(); assert child.wait() == -9
",
        pidns = if setting.namespaces == Has::All { "True" } else { "False" }
    );
    Sandbox::python(&program).set(setting).run().ok();
}

fn supervisor(setting: Setting) {
    // Without a PID namespace the program finds its supervisor by its parents.
    Sandbox::python(
        "
def parent(pid): return int(open('/proc/%d/stat' % pid).read().rsplit(')', 1)[1].split()[1])
above, pid = [], os.getppid()
while pid > 1 and len(above) < 5: above.append(pid); pid = parent(pid)
for pid in above + [1]:
    for name in ['mem', 'environ', 'maps', 'fd']:
        try: (os.listdir if name == 'fd' else open)('/proc/%d/%s' % (pid, name)); raise SystemExit('%d/%s' % (pid, name))
        except OSError as e: assert e.errno in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESRCH), e
for pid in above[1:]: expect(errno.EPERM, lambda: os.kill(pid, 0))
expect(errno.EPERM, lambda: syscall(101, 16, above[0] if above else 1, 0, 0))
expect(errno.EPERM, lambda: syscall(310, above[0] if above else 1, 0, 0, 0, 0, 0))
import fcntl
a, b = socket.socketpair()
for pid in above[1:]:
    try: fcntl.fcntl(a, 8, pid); fcntl.fcntl(a, 10, 9); fcntl.fcntl(a, 4, 0o20000); b.send(b'x'); time.sleep(0.05)
    except OSError: pass
",
    )
    .set(setting)
    .run()
    .ok();
}

fn doors(setting: Setting) {
    Sandbox::python(
        "
EPERM = errno.EPERM
for number in [425, 101, 310, 311, 438, 312, 308, 165, 155, 161, 430, 428, 321, 323, 250, 304, 298]:
    expect(EPERM, lambda: syscall(number, 0, 0, 0, 0, 0))
for flag in [0x10000000, 0x40000000, 0x20000, 0x20000000]: expect(EPERM, lambda: syscall(272, flag))
expect(errno.ENOSYS, lambda: syscall(435, 0, 0))
expect(errno.ENOSYS, lambda: syscall(999, 0))
expect(errno.ENOSYS, lambda: syscall(0x40000000 | 41, 2, 2, 0))
for family in [17, 40, 38, 44, 15, 31]: expect(errno.EAFNOSUPPORT, lambda: socket.socket(family, 3, 0))
s = socket.socket()
for level, option in [(1, 25), (1, 62), (1, 36), (6, 31), (6, 19)]:
    expect(EPERM, lambda: s.setsockopt(level, option, b'lo'))
expect(errno.EOPNOTSUPP, lambda: s.sendto(b'x', 0x20000000, ('192.0.2.1', 80)))
assert libc.prctl(4, 0, 0, 0, 0) == 0 and libc.prctl(3, 0, 0, 0, 0) == 1
pid = os.fork()
if pid == 0:
    import mmap
    code = mmap.mmap(-1, 4096, prot=7); code.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))(); os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS
",
    )
    .set(setting)
    .run()
    .ok();
}

fn shared_memory(setting: Setting) {
    let made = std::process::Command::new("ipcmk").args(["-M", "4096", "-p", "0666"]).output().unwrap();
    let id = String::from_utf8_lossy(&made.stdout).split_whitespace().last().unwrap().to_owned();
    let program = format!(
        "
for flags in [0, 0o10000]:
    try: syscall(30, {id}, 0, flags); raise SystemExit('attached')
    except OSError as e: assert e.errno in (errno.EPERM, errno.EINVAL), e
"
    );
    let outcome = Sandbox::python(&program).set(setting).run();
    std::process::Command::new("ipcrm").args(["-m", &id]).status().unwrap();
    outcome.ok();
}

fn socket_as_input(setting: Setting) {
    let mut sandbox = Sandbox::new(&["/bin/cat"]).set(setting);
    sandbox.plan.also = Also::SocketAsInput(server("inherited"));
    let outcome = sandbox.run();
    assert_eq!(outcome.code, 127);
    outcome.logged("is no pipe, file or terminal");
}

fn inherited(setting: Setting) {
    Sandbox::python(
        "
fds = {int(name) for name in os.listdir('/proc/self/fd')}
assert {f for f in fds if f > 2 and os.path.exists('/proc/self/fd/%d' % f) and os.readlink('/proc/self/fd/%d' % f) != '/proc/%d/fd' % os.getpid()} == set(), fds
",
    )
    .set(setting)
    .run()
    .ok();
}

fn protected(setting: Setting) {
    let mut sandbox = Sandbox::new(&["/bin/true"]).set(setting);
    sandbox.plan.domain.protected = vec!["/usr/share/openshell-protected".into()];
    let outcome = sandbox.run();
    assert_eq!(outcome.code, 69);
    outcome.logged("GrantOverProtectedPath").logged("/usr but /usr/share/openshell-protected");
}

fn closed(setting: Setting) {
    if setting.user == User::Ordinary {
        // Its own directories are never closed to it.
        return;
    }
    let closed = tempfile::Builder::new().prefix("openshell-closed-").tempdir_in("/var/lib").unwrap();
    fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(closed.path().join("secret"), "x").unwrap();
    let inner = tempfile::tempdir_in(closed.path()).unwrap();
    let program = "ls .. ; echo x > mine && cat mine && ! cat ../../secret";
    let sandbox = Sandbox::within(inner, &["/bin/sh", "-c", program]).set(setting);
    if setting.namespaces == Has::All {
        let mut sandbox = sandbox;
        // The log is the helper's; it lies where the agent sees nothing.
        sandbox.plan.domain.read_only.push("/var/lib".into());
        sandbox.run().ok();
    } else {
        let outcome = sandbox.run();
        assert_eq!(outcome.code, 69);
        outcome.logged("WorkspaceUnreachable");
    }
}

fn unknown_program(setting: Setting) {
    let outcome = Sandbox::new(&["no-such-program"]).set(setting).run();
    assert_eq!(outcome.code, 127);
    outcome.logged("exec no-such-program: No such file or directory");
}

/// What came of a kill.
struct Killed {
    code: Option<i32>,
    log: String,
}

/// Starts a daemon that forked twice, kills processes of ours, and waits for the end of everything.
fn killed(setting: Setting, which: &[&str]) -> Killed {
    let sandbox = Sandbox::python(
        "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open('beat', 'w').write(str(time.time())); time.sleep(0.01)
    os._exit(0)
time.sleep(60)
",
    )
    .set(setting);
    let beat = sandbox.workspace().join("beat");
    let mut child = sandbox.start();
    wait_for("the daemon", || beat.exists());
    let log = fs::read_to_string(&sandbox.plan.log).unwrap();
    let processes: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    for name in which {
        let pid = rustix::process::Pid::from_raw(processes[name].as_i64().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    // Not for the end of its output, which somebody who survived would hold open.
    let code = child.wait().unwrap().code();
    wait_for("the daemon's end", || still(&beat));
    for name in ["guardian", "supervisor", "launcher"] {
        wait_for(name, || ended(&processes[name]));
    }
    Killed { code, log: fs::read_to_string(&sandbox.plan.log).unwrap() }
}

/// Gone, or dead and not yet waited for by whoever adopted it.
fn ended(pid: &serde_json::Value) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn still(beat: &Path) -> bool {
    let before = fs::read(beat).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::read(beat).unwrap() == before
}

#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn daemon(setting: Setting) {
    assert_eq!(killed(setting, &["supervisor"]).code, Some(137));
}

fn guardian(setting: Setting) {
    let killed = killed(setting, &["guardian"]);
    assert_eq!(killed.code, None);
    assert!(killed.log.contains("{\"fatal\":\"GuardianDied\"}"), "{}", killed.log);
}

fn guardian_and_launcher(setting: Setting) {
    let killed = killed(setting, &["guardian", "launcher"]);
    assert_eq!(killed.code, None);
    // Both are true; which is seen first is chance.
    let told = ["{\"fatal\":\"GuardianDied\"}", "{\"end\":70}"];
    assert!(told.iter().any(|reason| killed.log.contains(reason)), "{}", killed.log);
}

fn launcher(setting: Setting) {
    assert_eq!(killed(setting, &["launcher"]).code, Some(70));
}

//! What a process inside reaches, and what it does not.

use std::{net::TcpListener, os::unix::net::UnixListener};

use crate::{
    harness::{Case, Sandbox, Setting, own_address, server},
    helper::Also,
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("an allowed connection carries bytes", allowed),
    ("a refused connection is refused with its error", refused),
    ("curl, perl and threads connect unchanged", programs),
    ("a connect that does not wait", non_blocking),
    ("names resolve by datagram and by stream", names),
    ("datagrams go nowhere else", datagrams),
    ("loopback is private", loopback),
    ("two sandboxes listen on one port", two_listeners),
    ("a server inside is reached through the broker", inside),
    ("UNIX sockets outside are out of reach", unix_outside),
    ("UNIX sockets inside work", unix_inside),
    ("racing an address reaches nothing", race),
    ("racing a family reaches nothing", family_race),
    ("destinations are not swapped", swapped),
    ("sockets without end are EMFILE and come back", exhaustion),
    ("asyncio makes many connections", asyncio),
    ("connects that hang hold up nobody else", hanging),
    ("a flood of datagrams holds up nobody else", flood),
    ("racing a bind makes no abstract listener", abstract_race),
    ("a listener that was shut down lends its port to nobody", shut_down),
];

fn allowed(setting: Setting) {
    let target = server("hello");
    Sandbox::python(
        "
s = socket.create_connection(('203.0.113.5', 4000), timeout=5)
assert s.getpeername() == ('203.0.113.5', 4000) and s.getsockname()[0] == '127.0.0.1', (s.getpeername(), s.getsockname())
s.sendall(b'ping'); s.shutdown(socket.SHUT_WR)
data = b''
while chunk := s.recv(100): data += chunk
assert data == b'hello:ping', data
expect(errno.EISCONN, lambda: s.connect(('203.0.113.5', 4000)))
s6 = socket.socket(socket.AF_INET6); s6.settimeout(5); s6.connect(('::ffff:203.0.113.5', 4000)); s6.sendall(b'six')
assert s6.recv(100) == b'hello:six'
",
    )
    .set(setting)
    .allow("203.0.113.5:4000", target)
    .run()
    .ok()
    .logged("\"exe\":\"/usr/bin/python3");
}

fn refused(setting: Setting) {
    let nobody = std::net::SocketAddr::new(own_address(), 1);
    let real = server("never");
    let program = format!(
        "
expect(errno.EACCES, lambda: socket.create_connection(('203.0.113.9', 80), timeout=5))
expect(errno.EACCES, lambda: socket.create_connection(({:?}, {}), timeout=5))
s = socket.socket(); s.settimeout(None)
expect(errno.ECONNREFUSED, lambda: s.connect(('203.0.113.5', 4001)))
expect(errno.ECONNREFUSED, lambda: s.connect(('203.0.113.5', 4001)))
for address in ['2001:db8::1', '::ffff:203.0.113.9']:
    six = socket.socket(socket.AF_INET6); expect(errno.EACCES, lambda: six.connect((address, 80)))
expect(errno.EAFNOSUPPORT, lambda: syscall(42, s.fileno(), ctypes.create_string_buffer(struct.pack('=HH24x', 10, 80)), 28))
",
        real.ip().to_string(),
        real.port()
    );
    Sandbox::python(&program).set(setting).allow("203.0.113.5:4001", nobody).run().ok().logged("\"open\":\"[2001:db8::1]:80\"");
}

fn programs(setting: Setting) {
    let target = server("hello");
    Sandbox::python(
        "
out = subprocess.run(['/usr/bin/curl', '-sS', '-m', '10', 'http://web.test:8080/'], capture_output=True, text=True)
assert (out.returncode, out.stdout) == (0, 'hello'), out
out = subprocess.run(['/usr/bin/curl', '-sS', '-m', '10', 'http://198.18.0.77:8081/'], capture_output=True, text=True)
assert out.returncode == 7, out
code = 'use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => \"web.test:8080\", Timeout => 5) or die \"$@\"; print $s \"GET / HTTP/1.0\\r\\n\\r\\n\"; $s->flush; print <$s>;'
out = subprocess.run(['/usr/bin/perl', '-e', code], capture_output=True, text=True)
assert out.stdout.endswith('hello'), out
failures = []
def one():
    try:
        s = socket.create_connection(('198.18.0.77', 8080), timeout=10); s.sendall(b'x'); assert s.recv(100) == b'hello:x'
    except Exception as e: failures.append(e)
threads = [threading.Thread(target=one) for _ in range(100)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not failures, failures[:3]
",
    )
    .set(setting)
    .name("web.test", [198, 18, 0, 77])
    .allow("198.18.0.77:8080", target)
    .run()
    .ok();
}

fn non_blocking(setting: Setting) {
    let target = server("late");
    let mut sandbox = Sandbox::python(
        "
import select
# The first call of a program reads it whole.
expect(errno.EACCES, lambda: socket.socket().connect(('203.0.113.6', 1)))
s = socket.socket(); s.setblocking(False)
begin = time.time(); r = s.connect_ex(('203.0.113.5', 4000)); took = time.time() - begin
assert r in (0, errno.EINPROGRESS), r
assert took < 0.25, took
select.select([], [s], [], 5); assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
s.send(b'x'); s.setblocking(True); s.settimeout(5); assert s.recv(100) == b'late:x'
d = socket.socket(); d.setblocking(False); d.connect_ex(('203.0.113.6', 4000)); d.setblocking(True); d.settimeout(5)
expect(errno.ECONNRESET, lambda: d.recv(1))
",
    )
    .set(setting)
    .allow("203.0.113.5:4000", target);
    sandbox.plan.delay_ms = 400;
    sandbox.run().ok();
}

fn names(setting: Setting) {
    Sandbox::python(
        "
assert socket.gethostbyname('web.test') == '198.18.0.77'
try: socket.gethostbyname('nobody.test'); raise SystemExit('resolved')
except socket.gaierror: pass
query = b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x03web\\x04test\\x00\\x00\\x01\\x00\\x01'
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(query, ('9.9.9.9', 53))
answer, source = u.recvfrom(512)
assert source == ('9.9.9.9', 53) and answer[:2] == b'\\x12\\x34' and answer[-4:] == bytes([198, 18, 0, 77]), (source, answer)
u.sendmsg([query[:5], query[5:]], [], 0, ('8.8.4.4', 53))
answer, _, flags, source = u.recvmsg(512)
assert source == ('8.8.4.4', 53) and flags == 0 and answer[-4:] == bytes([198, 18, 0, 77])
u.sendto(query, ('8.8.4.4', 53)); answer, _, flags, source = u.recvmsg(10); assert len(answer) == 10 and flags & socket.MSG_TRUNC
c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); c.connect(('2001:db8::53', 53)); c.send(query); c.settimeout(5)
assert c.recv(512)[-4:] == bytes([198, 18, 0, 77]) and c.getpeername()[0] == '2001:db8::53'
assert (u.getsockopt(1, socket.SO_TYPE), u.getsockopt(1, 39), u.getsockopt(1, 38)) == (socket.SOCK_DGRAM, socket.AF_INET, 17)
u.settimeout(0.2)
try: u.recvfrom(10); raise SystemExit('received')
except TimeoutError: pass
t = socket.create_connection(('127.0.0.11', 53), timeout=5); t.sendall(struct.pack('>H', len(query)) + query)
assert t.recv(512)[-4:] == bytes([198, 18, 0, 77])
",
    )
    .set(setting)
    .name("web.test", [198, 18, 0, 77])
    .run()
    .ok()
    .logged("nobody.test.");
}

fn datagrams(setting: Setting) {
    let outside = std::net::UdpSocket::bind((own_address(), 0)).unwrap();
    outside.set_nonblocking(true).unwrap();
    let address = outside.local_addr().unwrap();
    let host = tempfile::Builder::new().prefix("openshell-host-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = host.path().join("s").into_os_string().into_string().unwrap();
    let unix = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    unix.set_nonblocking(true).unwrap();
    let program = format!(
        "
to, path = ({:?}, {}), {path:?}
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
expect(errno.EACCES, lambda: u.sendto(b'1', to))
expect(errno.EACCES, lambda: u.connect(to))
expect(errno.EACCES, lambda: u.sendmsg([b'2'], [(0, 8, struct.pack('=iII', 2, 0, 0))], 0, to))
def raw(fd, sockaddr):
    buffer = ctypes.create_string_buffer(sockaddr)
    for call in [(42, fd, buffer, len(sockaddr)), (44, fd, buffer, 1, 0, buffer, len(sockaddr))]:
        try: syscall(*call)
        except OSError: pass
    try: os.write(fd, b'3')
    except OSError: pass
inet = struct.pack('=H', 2) + struct.pack('>H', to[1]) + socket.inet_aton(to[0]) + bytes(8)
local = struct.pack('=H', 1) + path.encode() + bytes(1)
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for s in [u, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), pair[0], socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)]:
    for address in [inet, local, bytes(16)]: raw(s.fileno(), address)
    raw(s.fileno(), local); raw(s.fileno(), inet)
    try: s.sendmsg([b'4'], [], 0, path)
    except (OSError, TypeError): pass
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try: s.sendto(b'5', path); raise SystemExit('sent')
except OSError as e: assert e.errno in (errno.EACCES, errno.ENOENT), e
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.send(b'six'); assert b.recv(9) == b'six'
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind(('127.0.0.1', 5353))
two = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); two.sendto(b'inside', ('localhost', 5353))
one.settimeout(5); data, source = one.recvfrom(100); assert data == b'inside' and source[0] == '127.0.0.1'
one.sendto(b'back', source); two.settimeout(5); assert two.recvfrom(9) == (b'back', ('127.0.0.1', 5353))
",
        address.ip().to_string(),
        address.port()
    );
    Sandbox::python(&program).set(setting).run().ok().logged("\"refused\":\"udp\"");
    let mut buffer = [0; 16];
    assert!(outside.recv(&mut buffer).is_err(), "a datagram got out");
    assert!(unix.recv(&mut buffer).is_err(), "a datagram reached a path");
}

fn loopback(setting: Setting) {
    let host: Vec<TcpListener> = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"].iter().filter_map(|at| TcpListener::bind(at).ok()).collect();
    let ports: Vec<u16> = host.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let program = format!(
        "
for port in {ports:?}:
    for address in ['127.0.0.1', '127.0.0.2', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1', '::ffff:0.0.0.0']:
        s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
        expect(errno.ECONNREFUSED, lambda: s.connect((address, port)))
def serve(family, address):
    l = socket.socket(family); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6: l.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    l.bind((address, 3000)); l.listen(); assert l.getsockname()[:2] == (address, 3000), l.getsockname(); return l
four, six = serve(socket.AF_INET, '0.0.0.0'), serve(socket.AF_INET6, '::1')
for listener, address in [(four, '127.0.0.1'), (six, '::1')]:
    c = socket.create_connection((address, 3000), timeout=5); a, _ = listener.accept(); c.sendall(b'x'); assert a.recv(1) == b'x'
    assert c.getpeername()[0] == address
expect(errno.EADDRINUSE, lambda: serve(socket.AF_INET, '127.0.0.1'))
four.close(); expect(errno.ECONNREFUSED, lambda: socket.create_connection(('127.0.0.1', 3000), timeout=5))
serve(socket.AF_INET, '127.0.0.1').close()
expect(errno.EADDRNOTAVAIL, lambda: socket.socket().bind(({own:?}, 3001)))
l = socket.socket(); l.listen(); c = socket.create_connection(('127.0.0.1', l.getsockname()[1]), timeout=5); l.accept()
u = socket.socket(); u.bind(('127.0.0.1', 0)); u.close(); time.sleep(0); v = socket.socket(); v.bind(('127.0.0.1', 3005)); v.close(); w = socket.socket(); w.bind(('127.0.0.1', 3005))
",
        own = own_address().to_string()
    );
    Sandbox::python(&program).set(setting).run().ok().logged("\"refused\":\"loopback\"");
}

fn two_listeners(setting: Setting) {
    let program = "
l = socket.socket(); l.bind(('0.0.0.0', 3000)); l.listen(); open('ready', 'w').close()
deadline = time.time() + 10
while not os.path.exists('go') and time.time() < deadline: time.sleep(0.01)
l.settimeout(5); c = socket.create_connection(('127.0.0.1', 3000), timeout=5); a, _ = l.accept(); a.send(b'own'); assert c.recv(3) == b'own'
l.settimeout(0.3)
try: l.accept(); raise SystemExit('somebody else came')
except TimeoutError: pass
";
    let sandboxes = [0, 1].map(|_| Sandbox::python(program).set(setting));
    let children: Vec<_> = sandboxes.iter().map(Sandbox::start).collect();
    let start = std::time::Instant::now();
    while !sandboxes.iter().all(|sandbox| sandbox.workspace().join("ready").exists()) && start.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for sandbox in &sandboxes {
        std::fs::write(sandbox.workspace().join("go"), "").unwrap();
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn inside(setting: Setting) {
    let mut sandbox = Sandbox::python(
        "
l = socket.socket(); l.bind(('127.0.0.1', 8000)); l.listen(); l.settimeout(10)
c, _ = l.accept(); c.sendall(b'from inside'); c.close(); time.sleep(0.3)
",
    )
    .set(setting);
    sandbox.plan.also = Also::DialInside(8000);
    sandbox.run().ok().logged("{\"inside\":\"from inside\"}");
}

fn unix_outside(setting: Setting) {
    let host = tempfile::Builder::new().prefix("openshell-host-").tempdir_in("/var/lib").or_else(|_| tempfile::tempdir()).unwrap();
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = host.path().join("service.sock").into_os_string().into_string().unwrap();
    let service = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let name = format!("openshell-test-{}-{:?}", std::process::id(), std::thread::current().id());
    let abstract_name = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
    let hidden = UnixListener::bind_addr(&abstract_name).unwrap();
    for listener in [&service, &hidden] {
        listener.set_nonblocking(true).unwrap();
    }
    let program = format!(
        "
path, name = {path:?}, {name:?}
os.symlink(path, 'link')
for target in [path, 'link', '/proc/self/root' + path, '/proc/self/cwd/link', os.getcwd() + '/link']:
    s = socket.socket(socket.AF_UNIX); s.settimeout(5)
    try: s.connect(target); raise SystemExit('connected ' + target)
    except OSError as e: assert e.errno in (errno.EACCES, errno.ENOENT, errno.ELOOP), (target, e)
s = socket.socket(socket.AF_UNIX); expect(errno.ECONNREFUSED, lambda: s.connect(chr(0) + name))
expect(errno.EACCES, lambda: s.bind(chr(0) + 'mine'))
good = os.getcwd() + '/good'
l = socket.socket(socket.AF_UNIX); l.bind(good); l.listen(64)
def accept():
    while True: l.accept()
threading.Thread(target=accept, daemon=True).start()
def swap():
    while True:
        os.symlink(path, 'next'); os.rename('next', 'race'); os.symlink(good, 'next'); os.rename('next', 'race')
threading.Thread(target=swap, daemon=True).start()
for _ in range(1000):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect('race')
    except OSError: pass
    s.close()
"
    );
    Sandbox::python(&program).set(setting).run().ok().logged("unix socket");
    for listener in [service, hidden] {
        assert!(listener.accept().is_err(), "a service of the host was reached");
    }
}

fn unix_inside(setting: Setting) {
    Sandbox::python(
        "
import array
for path in ['relative', os.getcwd() + '/absolute', TMP + '/tmp']:
    for kind in [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]:
        try: os.unlink(path)
        except FileNotFoundError: pass
        l = socket.socket(socket.AF_UNIX, kind); l.bind(path); l.listen()
        c = socket.socket(socket.AF_UNIX, kind); c.connect(path); a, _ = l.accept()
        r, w = os.pipe(); c.sendmsg([b'fd'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])
        data, control, _, _ = a.recvmsg(10, 100); assert data == b'fd'
        os.write(array.array('i', control[0][2])[0], b'through'); assert os.read(r, 9) == b'through'
        assert c.getpeername() == path, c.getpeername()
        peer = struct.unpack('3i', a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)); assert peer[1] == os.getuid(), peer
expect(errno.ENOENT, lambda: socket.socket(socket.AF_UNIX).connect('nothing'))
expect(errno.ECONNREFUSED, lambda: socket.socket(socket.AF_UNIX).connect('/etc/passwd'))
import multiprocessing.connection
l = multiprocessing.connection.Listener(TMP + '/mp'); c = multiprocessing.connection.Client(TMP + '/mp'); a = l.accept(); c.send({'x': 1}); assert a.recv() == {'x': 1}
",
    )
    .set(setting)
    .run()
    .ok();
}

/// A thread of the program changes the address while the main thread connects.
const FLIP: &str = "
a = (ctypes.c_ubyte * 16)()
def sockaddr(family, ip, port): return struct.pack('=H', family) + struct.pack('>H', port) + socket.inet_aton(ip) + bytes(8)
def flip(one, other):
    while True:
        ctypes.memmove(a, one, 16); ctypes.memmove(a, other, 16)
def attack(one, other, tries):
    threading.Thread(target=flip, args=(one, other), daemon=True).start()
    sys.setswitchinterval(1e-6)
    connected = 0
    for _ in range(tries):
        s = socket.socket(); s.setblocking(False)
        r = libc.connect(s.fileno(), a, 16)
        if r == 0 or ctypes.get_errno() == errno.EINPROGRESS: connected += 1
        s.close()
    return connected
";

fn race(setting: Setting) {
    let (good, secret) = (server("good"), TcpListener::bind((own_address(), 0)).unwrap());
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    secret.set_nonblocking(true).unwrap();
    host.set_nonblocking(true).unwrap();
    for forbidden in [secret.local_addr().unwrap(), host.local_addr().unwrap()] {
        let program = format!(
            "{FLIP}\nattack(sockaddr(2, '203.0.113.5', 4000), sockaddr(2, {:?}, {}), 1500)",
            forbidden.ip().to_string(),
            forbidden.port()
        );
        Sandbox::python(&program).set(setting).allow("203.0.113.5:4000", good).run().ok();
    }
    assert!(secret.accept().is_err() && host.accept().is_err(), "a race reached what is forbidden");
}

fn family_race(setting: Setting) {
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let port = host.local_addr().unwrap().port();
    let program =
        format!("{FLIP}\nfor family in [1, 0, 16]: attack(sockaddr(2, '127.0.0.1', {port}), sockaddr(family, '0.0.0.0', 0), 700)");
    Sandbox::python(&program).set(setting).run().ok();
    assert!(host.accept().is_err(), "a race reached the host's loopback");
}

fn swapped(setting: Setting) {
    let (one, two) = (server("one"), server("two"));
    Sandbox::python(
        "
wrong = []
def ask(word, port):
    for _ in range(60):
        try:
            s = socket.socket(); s.settimeout(10)
            s.connect(('203.0.113.5', port)); s.sendall(b'?')
            r = s.recv(100)
            if r != word + b':?': wrong.append((word, r))
            s.close()
        except OSError as e: wrong.append((word, e))
threads = [threading.Thread(target=ask, args=a) for a in [(b'one', 4001), (b'two', 4002)] * 4]
[t.start() for t in threads]; [t.join() for t in threads]
assert not wrong, wrong[:5]
",
    )
    .set(setting)
    .allow("203.0.113.5:4001", one)
    .allow("203.0.113.5:4002", two)
    .run()
    .ok();
}

fn exhaustion(setting: Setting) {
    let target = server("still");
    Sandbox::python(
        "
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
for family, kind in [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)]:
    held = []
    try:
        while len(held) < 30000: held.append(socket.socket(family, kind))
        raise SystemExit('no bound')
    except OSError as e: assert e.errno in (errno.EMFILE, errno.ENFILE), e
    assert len(held) > 200, len(held)
    for s in held: s.close()
for _ in range(6000): socket.socket().close()
time.sleep(0.1)
s = socket.create_connection(('203.0.113.5', 4000), timeout=5); s.sendall(b'x'); assert s.recv(100) == b'still:x'
",
    )
    .set(setting)
    .allow("203.0.113.5:4000", target)
    .run()
    .ok();
}

fn asyncio(setting: Setting) {
    let target = server("hello");
    Sandbox::python(
        "
import asyncio
async def one():
    reader, writer = await asyncio.open_connection('web.test', 8080)
    writer.write(b'GET / HTTP/1.0\\r\\n\\r\\n'); await writer.drain(); text = await reader.read(); writer.close(); return text.endswith(b'hello')
async def main():
    assert all(await asyncio.gather(*[one() for _ in range(50)]))
    server = await asyncio.start_server(lambda r, w: w.close(), 'localhost', 8123)
    reader, writer = await asyncio.open_connection('localhost', 8123); assert await reader.read() == b''
    process = await asyncio.create_subprocess_exec('/bin/echo', 'hi', stdout=asyncio.subprocess.PIPE); assert (await process.communicate())[0] == b'hi\\n'
asyncio.run(main())
",
    )
    .set(setting)
    .name("web.test", [198, 18, 0, 77])
    .allow("198.18.0.77:8080", target)
    .run()
    .ok();
}

/// An agent can make its own connects hang: its sockets drop what answers them, its listeners
/// accept nothing. That is its own time and none of the supervisor's.
fn hanging(setting: Setting) {
    let target = server("hello");
    Sandbox::python(
        "
signal.alarm(20)
nothing = ctypes.create_string_buffer(struct.pack('=HBBI', 6, 0, 0, 0))
def deaf():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('=H6xQ', 1, ctypes.addressof(nothing))); s.connect(('203.0.113.5', 4000))
full = socket.socket(socket.AF_UNIX); full.bind('full'); full.listen(0)
def queue():
    s = socket.socket(socket.AF_UNIX); s.connect('full'); time.sleep(60)
for call in [deaf] * 8 + [queue] * 16: threading.Thread(target=call, daemon=True).start()
time.sleep(0.5)
s = socket.create_connection(('203.0.113.5', 4000), timeout=5); s.sendall(b'x'); assert s.recv(9) == b'hello:x'
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(); c = socket.socket(); c.connect(l.getsockname()); l.accept()
",
    )
    .set(setting)
    .allow("203.0.113.5:4000", target)
    .run()
    .ok();
}

fn flood(setting: Setting) {
    let target = server("hello");
    Sandbox::python(
        "
signal.alarm(20)
def flood(fd):
    while True: os.write(fd, b'')
for _ in range(3):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('127.0.0.1', 9))
    for _ in range(2):
        if os.fork() == 0:
            signal.alarm(20); flood(u.fileno())
time.sleep(0.5)
s = socket.create_connection(('203.0.113.5', 4000), timeout=5); s.sendall(b'x'); assert s.recv(9) == b'hello:x'
",
    )
    .set(setting)
    .allow("203.0.113.5:4000", target)
    .run()
    .ok();
}

/// The path is left to the kernel, which reads the name again; whoever changes it meanwhile has a
/// name that everybody in the network namespace shares, and must not be heard there.
fn abstract_race(setting: Setting) {
    Sandbox::python(
        "
address = ctypes.create_string_buffer(struct.pack('=H', 1) + b'./raced')
def swap():
    while True: address[2] = 0; address[2] = 46
threading.Thread(target=swap, daemon=True).start()
hits, end = 0, time.time() + 8
while hits < 3 and time.time() < end:
    s = socket.socket(socket.AF_UNIX)
    if libc.bind(s.fileno(), address, 9) == 0:
        if isinstance(s.getsockname(), bytes): hits += 1; expect(errno.EACCES, s.listen)
        else: s.listen()
    s.close()
    try: os.unlink('raced')
    except OSError: pass
print(hits, 'of the races were won')
",
    )
    .set(setting)
    .run()
    .ok();
}

/// Without a network namespace a service of the host that listens everywhere would answer at the
/// sandbox's own address, once nothing of the sandbox listens there any more.
fn shut_down(setting: Setting) {
    let sandbox = Sandbox::python(
        "
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('127.0.0.1', 0)); l.listen()
l.shutdown(socket.SHUT_RDWR)
open('next', 'w').write(str(l.getsockname()[1])); os.rename('next', 'port')
deadline = time.time() + 10
while not os.path.exists('go') and time.time() < deadline: time.sleep(0.01)
for _ in range(3): expect(errno.ECONNREFUSED, lambda: socket.create_connection(('127.0.0.1', l.getsockname()[1]), timeout=5))
",
    )
    .set(setting);
    let child = sandbox.start();
    let start = std::time::Instant::now();
    let port = loop {
        match std::fs::read_to_string(sandbox.workspace().join("port")) {
            Ok(port) => break port.parse::<u16>().unwrap(),
            Err(_) => assert!(start.elapsed().as_secs() < 10, "the sandbox has no port"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let _host = TcpListener::bind(("0.0.0.0", port)).unwrap();
    std::fs::write(sandbox.workspace().join("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! Datagram sockets: emulated, all of them.
//!
//! The agent holds one end of a `SOCK_SEQPACKET` pair. It polls, reads and writes it as it would a
//! datagram socket, but the kernel ignores any address it names: a pair has the peer it was born
//! with. So nothing the agent can do to the socket reaches anybody but us, and what we do not
//! answer goes nowhere. A real datagram socket, of whatever family, does not exist inside.
//!
//! ```text
//!  write, send ──────────────▶ outside end ─▶ to the connected peer
//!  sendto, sendmsg, sendmmsg ─▶ (notified)  ─▶ to the named peer
//!                                              ├ port 53: policy DNS
//!                                              ├ loopback: a datagram socket of this sandbox
//!                                              └ else: refused and recorded
//!  read, recv ◀──────────────── inside end ◀── answers
//!  recvfrom, recvmsg ◀───────── (notified: who sent it is ours to say)
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    fs::OFlags,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};
use tokio::{
    io::unix::AsyncFd,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Shared,
    address::{Address, Family, canonical, encode, is_loopback},
    answer::{Answer, Answered, DONE, Errno},
    caller::Caller,
    local,
    sources::Sources,
    table::Socket,
    tcp::DNS,
};
use crate::{
    confine::{Wall, queued_bytes, watch},
    egress::identity::Identity,
    limits::broker::{BUFFERS_PER_MESSAGE, DATAGRAM_BYTES, DATAGRAMS_PER_CALL, DATAGRAMS_PER_TURN, STILL_THERE},
};

/// Sizes and offsets of `struct msghdr` and `struct mmsghdr` on 64-bit Linux.
mod layout {
    pub(super) const MSGHDR: usize = 56;
    pub(super) const MMSGHDR: usize = 64;
    pub(super) const NAME_LENGTH: u64 = 8;
    pub(super) const CONTROL_LENGTH: u64 = 40;
    pub(super) const FLAGS: u64 = 48;
    pub(super) const SENT: u64 = 56;
}

/// What the agent believes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Udp(Family),
    Unix,
}

/// An emulated datagram socket.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) kind: Kind,
    /// A copy of the agent's end, to receive on its behalf.
    inside: Arc<OwnedFd>,
    outside: Arc<OwnedFd>,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    bound: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    /// UNIX: where it is connected, checked and held.
    path: Option<Arc<OwnedFd>>,
    /// Who connected it; plain writes are theirs.
    identity: Option<Arc<Identity>>,
    /// Senders of what waits at the agent's end.
    sources: Sources,
}

/// Whether a receive waits.
#[derive(Clone, Copy, Debug)]
enum Patience {
    Returns,
    Waits,
    WaitsFor(Duration),
}

/// One received datagram.
struct Received {
    bytes: Vec<u8>,
    /// Its real length, which may be more than there was room for.
    length: usize,
    source: Option<SocketAddr>,
}

/// Makes one and starts to listen to it.
pub(super) fn make(shared: &Arc<Shared>, kind: Kind) -> Result<(Arc<OwnedFd>, Socket), Errno> {
    let (inside, outside) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (inside, outside) = (Arc::new(inside), Arc::new(outside));
    rustix::io::ioctl_fionbio(&outside, true)?;
    let datagram = Arc::new(Datagram {
        kind,
        inside: Arc::clone(&inside),
        outside: Arc::clone(&outside),
        state: Mutex::default(),
        arrived: Notify::new(),
    });
    let _context = shared.runtime.enter();
    let ready = watch(outside)?;
    shared.runtime.spawn(read_outside(Arc::downgrade(shared), Arc::downgrade(&datagram), ready));
    Ok((inside, Socket::Datagram(datagram)))
}

/// Carries what the agent writes, until every copy of its end is closed.
async fn read_outside(shared: std::sync::Weak<Shared>, datagram: std::sync::Weak<Datagram>, ready: AsyncFd<Arc<OwnedFd>>) {
    for turn in 1_usize.. {
        if turn.is_multiple_of(DATAGRAMS_PER_TURN) {
            // Whoever never stops writing would have this thread of the runtime to himself.
            tokio::task::yield_now().await;
        }
        let Ok(mut guard) = ready.readable().await else { return };
        let read = guard.try_io(|fd| {
            let mut buffer = vec![0; DATAGRAM_BYTES];
            let (_, length) = rustix::net::recv(fd.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT)?;
            buffer.truncate(length);
            Ok(buffer)
        });
        let (Some(shared), Some(datagram)) = (shared.upgrade(), datagram.upgrade()) else { return };
        match read {
            Ok(Ok(bytes)) => {
                let (peer, path, identity) = {
                    let state = datagram.state.lock();
                    (state.peer, state.path.clone(), state.identity.clone())
                };
                match (peer, path) {
                    (Some(peer), _) => drop(datagram.carry(&shared, identity, peer, bytes)),
                    (None, Some(path)) => drop(local::send_datagram(&shared, &path, &bytes)),
                    (None, None) => {}
                }
            }
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ECONNRESET) => return,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

impl Datagram {
    fn family(&self) -> Family {
        match self.kind {
            Kind::Udp(family) => family,
            Kind::Unix => Family::V4,
        }
    }

    /// `SO_DOMAIN`, `SO_TYPE` or `SO_PROTOCOL`, as if it were what it stands for.
    pub(super) fn option(&self, option: i32) -> i32 {
        match (option, self.kind) {
            (libc::SO_TYPE, _) => libc::SOCK_DGRAM,
            (libc::SO_PROTOCOL, Kind::Udp(_)) => libc::IPPROTO_UDP,
            (libc::SO_DOMAIN, Kind::Udp(Family::V4)) => libc::AF_INET,
            (libc::SO_DOMAIN, Kind::Udp(Family::V6)) => libc::AF_INET6,
            (libc::SO_DOMAIN, Kind::Unix) => libc::AF_UNIX,
            _ => 0,
        }
    }

    /// `bind(2)`: nothing is bound anywhere; others of this sandbox can send to it.
    pub(super) fn bind(&self, shared: &Shared, address: &Address) -> Answered {
        let asked = match (self.kind, address) {
            (Kind::Udp(_), Address::Internet(asked)) => *asked,
            (Kind::Unix, Address::Path(path)) if path.is_empty() => return DONE,
            (Kind::Unix, Address::Path(_)) => return Err(Errno(libc::EOPNOTSUPP)),
            (Kind::Unix, Address::Abstract(_)) => return Err(Errno(libc::EACCES)),
            _ => return Err(Errno(libc::EAFNOSUPPORT)),
        };
        if !is_loopback(asked.ip()) {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        if self.state.lock().bound.is_some() {
            return Err(Errno(libc::EINVAL));
        }
        let port = if asked.port() == 0 {
            free_port(shared)?
        } else if bound_to(shared, asked.port(), self.family()).is_some() {
            return Err(Errno(libc::EADDRINUSE));
        } else {
            asked.port()
        };
        self.state.lock().bound = Some(SocketAddr::new(asked.ip(), port));
        DONE
    }

    /// `connect(2)`.
    pub(super) fn connect(&self, shared: &Shared, caller: &Caller<'_>, address: &Address) -> Answered {
        let mut peer = None;
        let mut path = None;
        match (self.kind, address) {
            (_, Address::Unspecified) => {}
            (Kind::Udp(_), Address::Internet(asked)) => {
                self.judge(shared, caller, *asked)?;
                peer = Some(*asked);
            }
            (Kind::Unix, address @ (Address::Path(_) | Address::Abstract(_))) => {
                path = Some(Arc::new(local::open(shared, caller, address)?));
            }
            _ => return Err(Errno(libc::EAFNOSUPPORT)),
        }
        let identity = if peer.is_some() || path.is_some() { Some(caller.identity(&shared.identities)?) } else { None };
        if peer.is_some() {
            self.bind_somewhere(shared)?;
        }
        let mut state = self.state.lock();
        (state.peer, state.path, state.identity) = (peer, path, identity);
        DONE
    }

    /// Whether datagrams may go there at all.
    fn judge(&self, shared: &Shared, caller: &Caller<'_>, asked: SocketAddr) -> Result<(), Errno> {
        if matches!((self.kind, asked), (Kind::Udp(Family::V4), SocketAddr::V6(_)) | (Kind::Udp(Family::V6), SocketAddr::V4(_))) {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        let destination = canonical(asked);
        if destination.port() == DNS || is_loopback(destination.ip()) {
            return Ok(());
        }
        let identity = caller.identity(&shared.identities).ok();
        let reason = "datagrams leave a sandbox as queries to policy DNS only; use TCP";
        shared.egress.refused(identity, "udp", &destination.to_string(), reason);
        Err(Errno(libc::EACCES))
    }

    fn bind_somewhere(&self, shared: &Shared) -> Result<(), Errno> {
        if self.state.lock().bound.is_none() {
            let port = free_port(shared)?;
            self.state.lock().bound = Some(SocketAddr::new(self.family().any(), port));
        }
        Ok(())
    }

    /// `getsockname(2)`.
    pub(super) fn local(&self) -> SocketAddr {
        let state = self.state.lock();
        match state.bound {
            Some(bound) if bound.ip().is_unspecified() && state.peer.is_some() => SocketAddr::new(self.family().loopback(), bound.port()),
            Some(bound) => bound,
            None => SocketAddr::new(self.family().any(), 0),
        }
    }

    /// `getpeername(2)`.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.state.lock().peer
    }

    /// Takes one datagram to where it is meant for. What may not go there was refused before.
    fn carry(self: &Arc<Self>, shared: &Arc<Shared>, identity: Option<Arc<Identity>>, to: SocketAddr, bytes: Vec<u8>) -> Result<(), Errno> {
        let destination = canonical(to);
        if destination.port() == DNS {
            let Some(identity) = identity else { return Err(Errno(libc::EACCES)) };
            // More than there may be are lost, as datagrams are.
            let Ok(permit) = Arc::clone(&shared.queries).try_acquire_owned() else { return Ok(()) };
            let (this, egress) = (Arc::downgrade(self), Arc::clone(&shared.egress));
            shared.runtime.spawn(async move {
                let answer = egress.resolve(identity, bytes).await;
                if let (Some(answer), Some(this)) = (answer, this.upgrade()) {
                    this.deliver(to, &answer);
                }
                drop(permit);
            });
            return Ok(());
        }
        let side = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
        if let Some(receiver) = bound_to(shared, destination.port(), side) {
            let own = self.local();
            let ip = if own.ip().is_unspecified() { side.loopback() } else { own.ip() };
            receiver.deliver(SocketAddr::new(ip, own.port()), &bytes);
        }
        Ok(())
    }

    /// Puts a datagram before the agent. One that does not fit is lost.
    fn deliver(&self, source: SocketAddr, bytes: &[u8]) {
        let mut state = self.state.lock();
        // A connected socket hears its peer and nobody else.
        if state.peer.is_some_and(|peer| canonical(peer) != canonical(source)) {
            return;
        }
        state.sources.sync(self.queued());
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if rustix::net::send(&self.outside, bytes, flags).is_ok() {
            state.sources.push(source, bytes.len());
            drop(state);
            self.arrived.notify_waiters();
        }
    }

    /// Bytes that wait at the agent's end.
    fn queued(&self) -> usize {
        queued_bytes(std::os::fd::AsFd::as_fd(&*self.inside))
    }

    fn receive(&self, room: usize, flags: i32) -> Result<Received, Errno> {
        let mut state = self.state.lock();
        state.sources.sync(self.queued());
        let peek = flags & libc::MSG_PEEK != 0;
        let mut asked = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        asked.set(RecvFlags::PEEK, peek);
        let mut bytes = vec![0; room.min(DATAGRAM_BYTES)];
        let (_, length) = rustix::net::recv(&*self.inside, &mut bytes[..], asked)?;
        bytes.truncate(length);
        let source = if peek { state.sources.peek() } else { state.sources.pop() };
        Ok(Received { bytes, length, source: source.or(state.peer) })
    }

    /// Whether a call with these flags waits, and how long at most.
    fn patience(&self, flags: i32) -> Patience {
        let returns =
            flags & libc::MSG_DONTWAIT != 0 || rustix::fs::fcntl_getfl(&*self.inside).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        if returns {
            return Patience::Returns;
        }
        match sockopt::socket_timeout(&*self.inside, sockopt::Timeout::Recv).ok().flatten() {
            Some(time) => Patience::WaitsFor(time),
            None => Patience::Waits,
        }
    }

    fn source_bytes(&self, received: &Received) -> Vec<u8> {
        match (self.kind, received.source) {
            (Kind::Udp(family), Some(source)) => encode(source, family),
            _ => Vec::new(),
        }
    }
}

/// The datagram socket of this sandbox that is bound to a port.
fn bound_to(shared: &Shared, port: u16, side: Family) -> Option<Arc<Datagram>> {
    shared.table.find(|entry| {
        let Socket::Datagram(datagram) = &entry.socket else { return None };
        let bound = datagram.state.lock().bound?;
        let dual = bound.ip().is_unspecified() && bound.is_ipv6();
        let same = match bound.ip().to_canonical() {
            IpAddr::V4(_) => side == Family::V4,
            IpAddr::V6(_) => side == Family::V6,
        };
        (bound.port() == port && (same || dual)).then(|| Arc::clone(datagram))
    })
}

/// A port nobody of this sandbox has, from the range the kernel chooses from.
fn free_port(shared: &Shared) -> Result<u16, Errno> {
    use rand::Rng as _;
    let mut random = rand::rng();
    (0..64)
        .map(|_| random.random_range(32_768..=60_999))
        .find(|port| bound_to(shared, *port, Family::V4).is_none() && bound_to(shared, *port, Family::V6).is_none())
        .ok_or(Errno(libc::EADDRINUSE))
}

/// Sends one datagram to an address.
fn send_one(
    shared: &Arc<Shared>,
    caller: &Caller<'_>,
    datagram: &Arc<Datagram>,
    to: Option<Address>,
    bytes: Vec<u8>,
) -> Result<usize, Errno> {
    let length = bytes.len();
    let (to, path) = match (datagram.kind, to) {
        (Kind::Udp(_), Some(Address::Internet(asked))) => {
            datagram.judge(shared, caller, asked)?;
            (Some(asked), None)
        }
        (Kind::Unix, Some(address @ (Address::Path(_) | Address::Abstract(_)))) => {
            (None, Some(Arc::new(local::open(shared, caller, &address)?)))
        }
        (_, Some(_)) => return Err(Errno(libc::EAFNOSUPPORT)),
        (_, None) => {
            let state = datagram.state.lock();
            (state.peer, state.path.clone())
        }
    };
    match (to, path) {
        (Some(to), _) => {
            let identity = caller.identity(&shared.identities)?;
            datagram.bind_somewhere(shared)?;
            datagram.carry(shared, Some(identity), to, bytes)?;
        }
        (None, Some(path)) => {
            caller.still_there()?;
            local::send_datagram(shared, &path, &bytes)?;
        }
        (None, None) => return Err(Errno(if datagram.kind == Kind::Unix { libc::ENOTCONN } else { libc::EDESTADDRREQ })),
    }
    Ok(length)
}

/// `sendto(2)` with an address.
pub(super) fn sendto(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>) -> Answered {
    let length = usize::try_from(caller.argument(2)).unwrap_or(usize::MAX);
    if length > DATAGRAM_BYTES {
        return Err(Errno(libc::EMSGSIZE));
    }
    let address = caller.address(4, 5)?;
    let bytes = caller.read(caller.argument(1), length)?;
    send_one(shared, caller, datagram, Some(address), bytes).map(|sent| Answer::Value(sent as i64))
}

/// A `struct msghdr`.
struct Header {
    name: u64,
    name_length: u32,
    buffers: Vec<(u64, usize)>,
    control_length: u64,
}

fn header(caller: &mut Caller<'_>, at: u64) -> Result<Header, Errno> {
    let bytes = caller.read(at, layout::MSGHDR)?;
    let word = |offset: usize| u64::from_ne_bytes(*bytes[offset..].first_chunk().expect("a header has 56 bytes"));
    let count = usize::try_from(word(24)).unwrap_or(usize::MAX);
    if count > BUFFERS_PER_MESSAGE {
        return Err(Errno(libc::EMSGSIZE));
    }
    let vectors = caller.read(word(16), count * 16)?;
    let buffers = vectors
        .chunks_exact(16)
        .map(|vector| {
            let half = |offset: usize| u64::from_ne_bytes(*vector[offset..].first_chunk().expect("a vector has 16 bytes"));
            (half(0), usize::try_from(half(8)).unwrap_or(usize::MAX))
        })
        .collect();
    Ok(Header { name: word(0), name_length: word(8) as u32, buffers, control_length: word(40) })
}

fn send_message(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>, at: u64) -> Result<usize, Errno> {
    let header = header(caller, at)?;
    let mut bytes = Vec::new();
    for (pointer, length) in &header.buffers {
        if length.saturating_add(bytes.len()) > DATAGRAM_BYTES {
            return Err(Errno(libc::EMSGSIZE));
        }
        bytes.extend(caller.read(*pointer, *length)?);
    }
    if datagram.kind == Kind::Unix && header.control_length > 0 {
        // Descriptors do not travel on an emulated socket.
        return Err(Errno(libc::EOPNOTSUPP));
    }
    let address = if header.name == 0 {
        None
    } else {
        let length = header.name_length as usize;
        if length > super::address::LONGEST {
            return Err(Errno(libc::EINVAL));
        }
        Some(Address::parse(&caller.read(header.name, length)?)?)
    };
    send_one(shared, caller, datagram, address, bytes)
}

/// `sendmsg(2)`.
pub(super) fn sendmsg(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>) -> Answered {
    let at = caller.argument(1);
    send_message(shared, caller, datagram, at).map(|sent| Answer::Value(sent as i64))
}

/// `sendmmsg(2)`: as many as go, an error only if the first does not.
pub(super) fn sendmmsg(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>) -> Answered {
    let count = (caller.argument(2) as u32 as usize).min(DATAGRAMS_PER_CALL);
    let mut done = 0;
    for index in 0..count {
        let at = caller.argument(1) + (index * layout::MMSGHDR) as u64;
        match send_message(shared, caller, datagram, at) {
            Ok(sent) => caller.write(at + layout::SENT, &(sent as u32).to_ne_bytes())?,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        done += 1;
    }
    Ok(Answer::Value(done))
}

/// Where a received datagram goes in the caller.
#[derive(Clone, Copy)]
enum Into {
    /// `recvfrom(2)`.
    Buffer,
    /// `recvmsg(2)`.
    Message,
}

/// `recvfrom(2)` with an address.
pub(super) fn recvfrom(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>) -> Answered {
    let flags = caller.int(3);
    receive(shared, caller, datagram, flags, Into::Buffer)
}

/// `recvmsg(2)`.
pub(super) fn recvmsg(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>) -> Answered {
    let flags = caller.int(2);
    receive(shared, caller, datagram, flags, Into::Message)
}

fn receive(shared: &Arc<Shared>, caller: &mut Caller<'_>, datagram: &Arc<Datagram>, flags: i32, into: Into) -> Answered {
    match take(caller, datagram, flags, into) {
        Err(Errno(libc::EAGAIN)) => {}
        result => return result,
    }
    let deadline = match datagram.patience(flags) {
        Patience::Returns => return Err(Errno(libc::EAGAIN)),
        Patience::Waits => None,
        Patience::WaitsFor(time) => Some(Instant::now() + time),
    };
    let permit = Arc::clone(&shared.receives).try_acquire_owned().map_err(|_| Errno(libc::EAGAIN))?;
    let (shared, datagram, notification) = (Arc::clone(shared), Arc::clone(datagram), caller.notification());
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let result = loop {
            let arrived = datagram.arrived.notified();
            match take(&mut Caller::new(&shared.listener, notification), &datagram, flags, into) {
                Err(Errno(libc::EAGAIN)) => {}
                result => break result,
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(Errno(libc::EAGAIN));
            }
            let until = deadline.map_or(STILL_THERE, |deadline| STILL_THERE.min(deadline.saturating_duration_since(Instant::now())));
            let _ = timeout(until, arrived).await;
            if !shared.listener.pending(notification.id) {
                break Ok(Answer::Taken);
            }
        };
        drop(permit);
        shared.answer(notification.id, result);
    });
    Ok(Answer::Taken)
}

fn take(caller: &mut Caller<'_>, datagram: &Datagram, flags: i32, into: Into) -> Answered {
    match into {
        Into::Buffer => {
            let room = usize::try_from(caller.argument(2)).unwrap_or(usize::MAX);
            caller.still_there()?;
            let received = datagram.receive(room, flags)?;
            caller.write(caller.argument(1), &received.bytes)?;
            let source = datagram.source_bytes(&received);
            if caller.argument(5) != 0 {
                caller.write_address(caller.argument(4), caller.argument(5), &source)?;
            }
            Ok(returned(&received, flags))
        }
        Into::Message => {
            let at = caller.argument(1);
            let header = header(caller, at)?;
            let room = header.buffers.iter().fold(0_usize, |sum, (_, length)| sum.saturating_add(*length));
            caller.still_there()?;
            let received = datagram.receive(room, flags)?;
            let mut rest = &received.bytes[..];
            for (pointer, length) in &header.buffers {
                let (now, later) = rest.split_at(rest.len().min(*length));
                caller.write(*pointer, now)?;
                rest = later;
            }
            if header.name != 0 {
                let source = datagram.source_bytes(&received);
                let shown = source.len().min(header.name_length as usize);
                caller.write(header.name, &source[..shown])?;
                caller.write(at + layout::NAME_LENGTH, &(source.len() as u32).to_ne_bytes())?;
            }
            caller.write(at + layout::CONTROL_LENGTH, &0_u64.to_ne_bytes())?;
            let cut = if received.length > received.bytes.len() { libc::MSG_TRUNC } else { 0 };
            caller.write(at + layout::FLAGS, &cut.to_ne_bytes())?;
            Ok(returned(&received, flags))
        }
    }
}

fn returned(received: &Received, flags: i32) -> Answer {
    let length = if flags & libc::MSG_TRUNC == 0 { received.bytes.len() } else { received.length };
    Answer::Value(length as i64)
}

/// `socketpair(2)` of datagrams: a pair that cannot be addressed, either.
pub(super) fn pair(caller: &mut Caller<'_>, shared: &Shared) -> Answered {
    use crate::confine::CloseOnExec;
    use std::os::fd::AsFd as _;
    let (kind, flags) = (caller.int(1), caller.int(1) & !0xf);
    if caller.int(0) != libc::AF_UNIX {
        return Err(Errno(libc::EOPNOTSUPP));
    }
    if !Wall::UdpEmulation.stands() {
        return Ok(Answer::Proceed);
    }
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return Err(Errno(libc::EINVAL));
    }
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    if kind & libc::SOCK_NONBLOCK != 0 {
        rustix::io::ioctl_fionbio(&one, true)?;
        rustix::io::ioctl_fionbio(&other, true)?;
    }
    let close = if kind & libc::SOCK_CLOEXEC == 0 { CloseOnExec::No } else { CloseOnExec::Yes };
    let first = shared.listener.place(caller.id(), one.as_fd(), close)?;
    let second = shared.listener.place(caller.id(), other.as_fd(), close)?;
    caller.write(caller.argument(3), &[first.to_ne_bytes(), second.to_ne_bytes()].concat())?;
    DONE
}

impl From<tokio::sync::TryAcquireError> for Errno {
    fn from(_: tokio::sync::TryAcquireError) -> Self {
        Self(libc::EAGAIN)
    }
}

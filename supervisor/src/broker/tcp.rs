//! TCP sockets: made by us, bound to the loopback device, connected by us and nobody else.
//!
//! ```text
//!  fresh ──connect──▶ connecting ──▶ connected      our copy is dropped when the connection is matched
//!    │  ▲                │ refused
//!    │  └────────────────┘
//!    └──listen──▶ listening
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    pin::pin,
    sync::{Arc, Weak},
};

use futures::future::{Either, select};
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    net::sockopt,
};

use super::{
    Shared,
    address::{Address, Family, canonical, is_loopback},
    answer::{Answer, Answered, DONE, Errno},
    caller::Caller,
    dns,
    loopback::Side,
    rendezvous::Service,
    table::{Entry, Socket},
};
use crate::{
    confine::{SocketKind, Wall, bind_address_no_port, bind_to_device},
    egress::identity::Identity,
    flow::{Flow, Intent, Refusal},
    limits::broker::{CONNECT_HEAD_START, STILL_THERE},
};

/// Port of DNS.
pub(super) const DNS: u16 = 53;
/// Below this a port needs a privilege.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// A TCP socket of the agent.
#[derive(Debug)]
pub(super) struct TcpSocket {
    pub(super) family: Family,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Our copy; none once it is not needed.
    socket: Option<Arc<OwnedFd>>,
    /// What the agent asked to be bound to, with the port it got.
    asked: Option<SocketAddr>,
    /// Which of our addresses it is bound to.
    side: Option<Side>,
    /// Whether a listener takes connections of both families.
    dual: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Connecting,
    Connected { peer: SocketAddr, port: u16 },
    Listening { port: u16 },
}

/// Whether the agent's socket wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Waits,
    Returns,
}

/// Makes one.
pub(super) fn make(shared: &Shared, family: Family) -> Result<(Arc<OwnedFd>, Socket), Errno> {
    let kind = match family {
        Family::V4 => SocketKind::Tcp4,
        Family::V6 => SocketKind::Tcp6,
    };
    let socket = Arc::new(shared.listener.make_socket(kind)?);
    if Wall::BindToDevice.stands() {
        bind_to_device(socket.as_fd(), c"lo")?;
    }
    let state = State { socket: Some(Arc::clone(&socket)), asked: None, side: None, dual: false, phase: Phase::Fresh };
    Ok((socket, Socket::Tcp(TcpSocket { family, state: Mutex::new(state) })))
}

impl TcpSocket {
    /// Which side a listener for this port and side is bound to, and our copy of it if we hold one.
    fn listens(&self, wanted: u16, side: Side) -> Option<(Side, Option<Arc<OwnedFd>>)> {
        let state = self.state.lock();
        let (Phase::Listening { port }, Some(bound)) = (state.phase, state.side) else { return None };
        (port == wanted && (bound == side || state.dual)).then(|| (bound, state.socket.clone()))
    }

    /// Our copy, if we hold one and nobody is at work with it.
    pub(super) fn descriptor(&self) -> Option<Weak<OwnedFd>> {
        // Who binds a socket and finds the port taken asks for all of them.
        self.state.try_lock()?.socket.as_ref().map(Arc::downgrade)
    }

    /// `bind(2)`.
    pub(super) fn bind(&self, shared: &Shared, address: &Address) -> Answered {
        let Address::Internet(asked) = address else {
            return Err(Errno(if *address == Address::Unspecified { libc::EINVAL } else { libc::EAFNOSUPPORT }));
        };
        if matches!((self.family, asked), (Family::V4, SocketAddr::V6(_)) | (Family::V6, SocketAddr::V4(_))) {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        let mut state = self.state.lock();
        if state.asked.is_some() || state.phase != Phase::Fresh {
            return Err(Errno(libc::EINVAL));
        }
        if asked.port() != 0 && asked.port() < FIRST_UNPRIVILEGED && !shared.listener.own_network() {
            return Err(Errno(libc::EACCES));
        }
        self.bind_inside(shared, &mut state, *asked)?;
        DONE
    }

    fn bind_inside(&self, shared: &Shared, state: &mut State, asked: SocketAddr) -> Result<(), Errno> {
        let socket = state.socket.clone().ok_or(Errno(libc::EINVAL))?;
        let mut target = asked;
        if Wall::PrivateLoopback.stands() {
            if !is_loopback(asked.ip()) {
                return Err(Errno(libc::EADDRNOTAVAIL));
            }
            let mut side = Side::V4;
            if self.family == Family::V6 {
                let only = sockopt::ipv6_v6only(&socket).unwrap_or(false);
                let mapped = matches!(asked.ip().to_canonical(), IpAddr::V4(_));
                if !mapped && (only || !asked.ip().is_unspecified()) {
                    side = Side::V6;
                }
                state.dual = asked.ip().is_unspecified() && !only;
                // Our addresses are IPv4 ones, which a socket for IPv6 only could not have.
                sockopt::set_ipv6_v6only(&socket, false)?;
            }
            state.side = Some(side);
            target = SocketAddr::new(shared.loopback.own(self.family, side), asked.port());
        }
        match rustix::net::bind(&socket, &target) {
            Err(rustix::io::Errno::ADDRINUSE) => {
                // Perhaps only we still hold what had the port.
                shared.table.collect_now().map_err(Errno::from)?;
                rustix::net::bind(&socket, &target)?;
            }
            result => result?,
        }
        state.asked = Some(SocketAddr::new(asked.ip(), local_port(&socket)?));
        Ok(())
    }

    /// `listen(2)`.
    pub(super) fn listen(&self, shared: &Shared, backlog: i32) -> Answered {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Listening { .. } => return DONE,
            Phase::Connecting | Phase::Connected { .. } => return Err(Errno(libc::EINVAL)),
            Phase::Fresh => {}
        }
        if state.asked.is_none() {
            self.bind_inside(shared, &mut state, SocketAddr::new(self.family.any(), 0))?;
        }
        let socket = state.socket.clone().ok_or(Errno(libc::EINVAL))?;
        rustix::net::listen(&socket, backlog)?;
        state.phase = Phase::Listening { port: local_port(&socket)? };
        if shared.listener.own_network() {
            // In a namespace of its own nobody else could take the port when the agent closes it.
            state.socket = None;
        }
        DONE
    }

    /// `getsockname(2)`: what was asked for.
    pub(super) fn local(&self) -> SocketAddr {
        let state = self.state.lock();
        match (state.asked, state.phase) {
            (Some(asked), Phase::Connected { .. }) if asked.ip().is_unspecified() => SocketAddr::new(self.family.loopback(), asked.port()),
            (Some(asked), _) => asked,
            (None, Phase::Connected { port, .. }) => SocketAddr::new(self.family.loopback(), port),
            (None, Phase::Listening { port }) => SocketAddr::new(self.family.any(), port),
            (None, Phase::Fresh | Phase::Connecting) => SocketAddr::new(self.family.any(), 0),
        }
    }

    /// `getpeername(2)`: where the agent meant to go.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self.state.lock().phase {
            Phase::Connected { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Takes the socket for a connect.
    fn begin(&self) -> Result<(Arc<OwnedFd>, Patience), Errno> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Connected { .. } | Phase::Listening { .. } => return Err(Errno(libc::EISCONN)),
            Phase::Connecting => return Err(Errno(libc::EALREADY)),
            Phase::Fresh => {}
        }
        let socket = state.socket.clone().ok_or(Errno(libc::EACCES))?;
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        state.phase = Phase::Connecting;
        Ok((socket, if flags.contains(OFlags::NONBLOCK) { Patience::Returns } else { Patience::Waits }))
    }

    fn abort(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Connecting {
            state.phase = Phase::Fresh;
        }
    }

    fn connected(&self, peer: SocketAddr, port: u16) {
        let mut state = self.state.lock();
        state.phase = Phase::Connected { peer, port };
        state.socket = None;
    }

    /// `connect(2)` with `AF_UNSPEC`.
    fn dissolve(&self) -> Answered {
        let mut state = self.state.lock();
        if state.phase == Phase::Connecting {
            return Err(Errno(libc::EALREADY));
        }
        let Some(socket) = state.socket.clone() else { return Err(Errno(libc::EINVAL)) };
        rustix::net::connect_unspec(&socket)?;
        state.phase = Phase::Fresh;
        (state.asked, state.side, state.dual) = (None, None, false);
        DONE
    }

    /// Binds to the sandbox's own address where the agent has not, so that the pair is ours, and
    /// connects. `Ok(true)`: it goes on in the background.
    fn connect_inside(&self, shared: &Shared, socket: &Arc<OwnedFd>, target: SocketAddr) -> Result<bool, Errno> {
        let bound = {
            let mut state = self.state.lock();
            state.asked.is_some() || state.side.replace(Side::V4).is_some()
        };
        if !bound {
            if self.family == Family::V6 {
                sockopt::set_ipv6_v6only(socket, false)?;
            }
            bind_address_no_port(socket.as_fd())?;
            let own = SocketAddr::new(shared.loopback.own(self.family, Side::V4), 0);
            rustix::net::bind(socket, &own)?;
        }
        match rustix::net::connect(socket, &target) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::INPROGRESS) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// `connect(2)` of a TCP socket.
pub(super) fn connect(shared: &Arc<Shared>, caller: &Caller<'_>, entry: &Arc<Entry>, tcp: &TcpSocket, address: &Address) -> Answered {
    let asked = match address {
        Address::Unspecified => return tcp.dissolve(),
        Address::Internet(asked) => *asked,
        _ => return Err(Errno(libc::EAFNOSUPPORT)),
    };
    if matches!((tcp.family, asked), (Family::V4, SocketAddr::V6(_)) | (Family::V6, SocketAddr::V4(_))) {
        return Err(Errno(libc::EAFNOSUPPORT));
    }
    let identity = caller.identity(&shared.identities)?;
    let (socket, patience) = tcp.begin()?;
    let destination = canonical(asked);
    let started = Connect { shared: Arc::clone(shared), entry: Arc::clone(entry), socket, patience, id: caller.id(), asked, identity };
    let result = if destination.port() == DNS && Wall::BrokerDecision.stands() {
        let service = dns::service(shared, &started.identity);
        started.later(|connect| connect.finish(service))
    } else if is_loopback(destination.ip()) {
        started.into_loopback(destination)
    } else {
        started.later(move |connect| connect.decide(destination))
    };
    if result.is_err() {
        tcp.abort();
    }
    result
}

/// A connect under way.
struct Connect {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    socket: Arc<OwnedFd>,
    patience: Patience,
    id: u64,
    asked: SocketAddr,
    identity: Arc<Identity>,
}

impl Connect {
    fn tcp(&self) -> Result<&TcpSocket, Errno> {
        match &self.entry.socket {
            Socket::Tcp(tcp) => Ok(tcp),
            Socket::Unix(_) | Socket::Datagram(_) => Err(Errno(libc::EACCES)),
        }
    }

    /// Goes on in a task of its own. The socket is free again if nothing came of it.
    fn later<F: Future<Output = Answered> + Send>(self, work: impl FnOnce(Self) -> F + Send + 'static) -> Answered {
        let permit = self.shared.connects()?;
        let runtime = self.shared.runtime.clone();
        runtime.spawn(async move {
            let _permit = permit;
            let (shared, entry, id) = (Arc::clone(&self.shared), Arc::clone(&self.entry), self.id);
            let result = work(self).await;
            if let (Err(errno), Socket::Tcp(tcp)) = (&result, &entry.socket)
                && errno.0 != libc::EINPROGRESS
            {
                tcp.abort();
            }
            shared.answer(id, result);
        });
        Ok(Answer::Taken)
    }

    /// Does what may hang where nobody but the agent waits for it.
    async fn waiting(self, work: impl FnOnce(Self) -> Answered + Send + 'static) -> Answered {
        let shared = Arc::clone(&self.shared);
        let Some(begun) = shared.waits.run(move || work(self)) else { return Err(Errno(libc::EAGAIN)) };
        begun.await.unwrap_or(Err(Errno(libc::EIO)))
    }

    /// To a listener of this sandbox.
    fn into_loopback(self, destination: SocketAddr) -> Answered {
        let (target, hold) = if Wall::PrivateLoopback.stands() {
            let side = if destination.is_ipv4() { Side::V4 } else { Side::V6 };
            let Some(found) = listener(&self.shared, self.tcp()?.family, destination.port(), side) else {
                let reason = "nothing in this sandbox listens there, and nothing else on loopback is within reach";
                self.shared.egress.refused(Some(Arc::clone(&self.identity)), "loopback", &destination.to_string(), reason);
                return Err(Errno(libc::ECONNREFUSED));
            };
            found
        } else {
            (self.asked, None)
        };
        self.later(move |connect| connect.waiting(move |connect| connect.join(target, hold)))
    }

    fn join(&self, target: SocketAddr, hold: Option<Arc<OwnedFd>>) -> Answered {
        let tcp = self.tcp()?;
        let in_progress = if Wall::PrivateLoopback.stands() {
            tcp.connect_inside(&self.shared, &self.socket, target)?
        } else {
            match rustix::net::connect(&self.socket, &target) {
                Ok(()) => false,
                Err(rustix::io::Errno::INPROGRESS) => true,
                Err(error) => return Err(error.into()),
            }
        };
        tcp.connected(self.asked, local_port(&self.socket)?);
        if !in_progress {
            return DONE;
        }
        if let Some(hold) = hold {
            self.shared.answer(self.id, Err(Errno(libc::EINPROGRESS)));
            // The backlog may be full. Until the kernel's last try the port must be the agent's.
            let mut set = [PollFd::new(&*self.socket, PollFlags::OUT)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut set, None));
            drop(hold);
            return Ok(Answer::Taken);
        }
        Err(Errno(libc::EINPROGRESS))
    }

    async fn decide(self, destination: SocketAddr) -> Answered {
        let mut opening = if Wall::BrokerDecision.stands() {
            self.shared.egress.open(Intent { identity: Arc::clone(&self.identity), destination })
        } else {
            Box::pin(undecided(destination))
        };
        let opened = match self.patience {
            Patience::Returns => match tokio::time::timeout(CONNECT_HEAD_START, &mut opening).await {
                Ok(opened) => opened,
                Err(_) => return self.finish(Service::Opening(opening)).await,
            },
            Patience::Waits => loop {
                match select(&mut opening, pin!(tokio::time::sleep(STILL_THERE))).await {
                    Either::Left((opened, _)) => break opened,
                    Either::Right(_) if self.shared.listener.pending(self.id) => {}
                    Either::Right(_) => return Err(Errno(libc::EINTR)),
                }
            },
        };
        match opened {
            Ok(flow) => self.finish(Service::Flow(flow)).await,
            Err(refusal) => Err(refusal.errno.into()),
        }
    }

    /// Connects the agent's own socket to where we accept, and registers what serves it.
    async fn finish(self, service: Service) -> Answered {
        self.waiting(move |connect| connect.meet(service)).await
    }

    fn meet(&self, service: Service) -> Answered {
        if !self.shared.listener.pending(self.id) {
            return Err(Errno(libc::EINTR));
        }
        let tcp = self.tcp()?;
        let target = self.shared.loopback.accepting(tcp.family);
        let in_progress = tcp.connect_inside(&self.shared, &self.socket, target)?;
        let source = local_address(&self.socket)?;
        tcp.connected(self.asked, source.port());
        self.shared.rendezvous.register(source, target, service, Arc::clone(&self.socket));
        if in_progress { Err(Errno(libc::EINPROGRESS)) } else { DONE }
    }
}

/// Where a listener of this sandbox is. In the supervisor's network namespace with our copy of it,
/// to be held until the connection is made: the port must be the agent's meanwhile, or whoever
/// listens on every address of the host would answer there.
pub(super) fn listener(shared: &Shared, family: Family, port: u16, side: Side) -> Option<(SocketAddr, Option<Arc<OwnedFd>>)> {
    let (inode, bound, hold) = shared.table.find(|entry| match &entry.socket {
        Socket::Tcp(tcp) => tcp.listens(port, side).map(|(bound, hold)| (entry.inode, bound, hold)),
        Socket::Unix(_) | Socket::Datagram(_) => None,
    })?;
    if !shared.listener.own_network() {
        if !shared.table.is_held(inode).unwrap_or(false) {
            shared.table.remove(inode);
            return None;
        }
        // shutdown(2) ends a listener that is still held.
        if !hold.as_ref().is_some_and(|socket| sockopt::socket_acceptconn(socket).unwrap_or(false)) {
            return None;
        }
    }
    Some((SocketAddr::new(shared.loopback.own(family, bound), port), hold))
}

fn local_address(socket: &OwnedFd) -> Result<SocketAddr, Errno> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| Errno(libc::EINVAL))
}

fn local_port(socket: &OwnedFd) -> Result<u16, Errno> {
    local_address(socket).map(|address| address.port())
}

/// Dials without a decision: the wall is down.
async fn undecided(destination: SocketAddr) -> Result<Box<dyn Flow>, Refusal> {
    struct Through(tokio::net::TcpStream);
    impl Flow for Through {
        fn serve(mut self: Box<Self>, mut agent: tokio::net::TcpStream) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(async move {
                // Its end is the connection's end.
                let _ = tokio::io::copy_bidirectional(&mut agent, &mut self.0).await;
            })
        }
    }
    match tokio::net::TcpStream::connect(destination).await {
        Ok(stream) => Ok(Box::new(Through(stream))),
        Err(error) => Err(Refusal { errno: crate::flow::Errno::Refused, reason: error.to_string() }),
    }
}

/// Connects to a server inside the sandbox.
pub(super) fn dial(shared: &Shared, port: u16) -> io::Result<std::net::TcpStream> {
    let target = [Side::V4, Side::V6].into_iter().find_map(|side| listener(shared, Family::V4, port, side));
    let (target, _hold) = target.ok_or(io::ErrorKind::ConnectionRefused)?;
    let socket = socket2::Socket::from(shared.listener.make_socket(SocketKind::Tcp4)?);
    socket.connect_timeout(&target.into(), crate::limits::broker::DIAL_INSIDE_TIME)?;
    Ok(socket.into())
}

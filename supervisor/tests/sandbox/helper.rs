//! A whole sandbox in one process: guardian, launcher, broker, and an egress that allows what the test
//! lists. The test executable becomes it when it is started with [`ARGUMENT`].

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use openshell_supervisor::{
    broker::Broker,
    confine::{Domain, Launcher, Spawn, guardian},
    egress::identity::{Identities, Identity},
    flow::{Egress, Errno, Flow, Intent, Refusal},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// First argument of a helper.
pub(crate) const ARGUMENT: &str = "sandbox-helper";

/// What a helper does, as JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) domain: Domain,
    pub(crate) argv: Vec<String>,
    /// Destination as the agent sees it, and where it is dialled.
    pub(crate) allow: BTreeMap<String, SocketAddr>,
    /// Names and their answers.
    pub(crate) names: BTreeMap<String, std::net::Ipv4Addr>,
    /// How long `open` takes.
    pub(crate) delay_ms: u64,
    /// Where records, exits and the report go, one JSON value a line.
    pub(crate) log: PathBuf,
    /// What the helper does besides.
    pub(crate) also: Also,
}

/// What a helper does besides waiting for its program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Also {
    #[default]
    Nothing,
    /// Gives the program a connected TCP socket as standard input.
    SocketAsInput(SocketAddr),
    /// Dials this port inside and writes what it reads to the log.
    DialInside(u16),
}

struct FakeEgress {
    plan: Plan,
    log: Mutex<File>,
}

impl FakeEgress {
    fn write(&self, value: &serde_json::Value) {
        writeln!(self.log.lock().unwrap(), "{value}").unwrap();
    }
}

struct Relay(TcpStream);

impl Flow for Relay {
    fn serve(mut self: Box<Self>, mut agent: TcpStream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = tokio::io::copy_bidirectional(&mut agent, &mut self.0).await;
        })
    }
}

impl Egress for FakeEgress {
    fn open(&self, intent: Intent) -> BoxFuture<'static, Result<Box<dyn Flow>, Refusal>> {
        let target = self.plan.allow.get(&intent.destination.to_string()).copied();
        let delay = Duration::from_millis(self.plan.delay_ms);
        self.write(&serde_json::json!({"open": intent.destination.to_string(), "exe": intent.identity.exe, "allowed": target.is_some()}));
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let Some(target) = target else { return Err(Refusal { errno: Errno::Denied, reason: "not listed".to_owned() }) };
            match TcpStream::connect(target).await {
                Ok(upstream) => Ok(Box::new(Relay(upstream)) as Box<dyn Flow>),
                Err(error) => Err(Refusal { errno: Errno::Refused, reason: error.to_string() }),
            }
        })
    }

    fn resolve(&self, _: Arc<Identity>, query: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        let answer = self.answer(&query);
        Box::pin(async move { answer })
    }

    fn refused(&self, identity: Option<Arc<Identity>>, what: &str, target: &str, reason: &str) {
        let exe = identity.map(|identity| identity.exe.clone());
        self.write(&serde_json::json!({"refused": what, "target": target, "reason": reason, "exe": exe}));
    }
}

impl FakeEgress {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?.clone();
        let name = question.name().to_ascii();
        self.write(&serde_json::json!({"resolve": name, "type": question.query_type().to_string()}));
        let mut answer = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        match self.plan.names.get(name.trim_end_matches('.')) {
            Some(address) if question.query_type() == RecordType::A => {
                answer.add_answer(Record::from_rdata(question.name().clone(), 30, RData::A(A(*address))));
            }
            Some(_) => {}
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.add_query(question);
        answer.to_vec().ok()
    }
}

/// Runs the helper and exits with its program's code.
pub(crate) fn run() -> ! {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let plan: Plan = serde_json::from_str(&text).unwrap();
    let log = File::options().create(true).append(true).open(&plan.log).unwrap();
    // The test reads what the program writes; nothing of ours may hold those pipes for long.
    let guardian = guardian::enter().unwrap();
    let launcher = Launcher::fork().unwrap();
    // As small as the supervisor's own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(8).enable_all().build().unwrap();
    let egress = Arc::new(FakeEgress { plan: plan.clone(), log: Mutex::new(log) });
    egress.write(&serde_json::json!({"guardian": guardian.pid(), "supervisor": std::process::id(), "launcher": launcher.process()}));
    egress.write(&serde_json::json!({"descriptors": rustix::process::getrlimit(rustix::process::Resource::Nofile).current}));
    let (gone, everybody) = std::sync::mpsc::channel();
    guardian.watch(move || gone.send(()).unwrap()).unwrap();
    let mut code = runtime.block_on(sandbox(&plan, &launcher, &egress));
    if guardian.ended() {
        // As the supervisor does: everybody is gone before it ends.
        everybody.recv_timeout(Duration::from_secs(10)).unwrap();
        egress.write(&serde_json::json!({"fatal": "GuardianDied"}));
        code = 70;
    }
    egress.write(&serde_json::json!({"end": code}));
    drop(launcher);
    std::process::exit(code)
}

async fn sandbox(plan: &Plan, launcher: &Launcher, egress: &Arc<FakeEgress>) -> i32 {
    let (listener, enforcement) = match launcher.confine(&plan.domain) {
        Ok(entered) => entered,
        Err(error) => {
            egress.write(&serde_json::json!({"confine": error.code, "message": error.message}));
            return 69;
        }
    };
    egress.write(&serde_json::to_value(&enforcement).unwrap());
    let handle = Broker::start(listener, Arc::clone(egress) as _, Arc::new(Identities::new()), tokio::runtime::Handle::current()).unwrap();
    let mut exits = launcher.exits().unwrap();
    let input = match plan.also {
        Also::SocketAsInput(address) => std::net::TcpStream::connect(address).unwrap().into(),
        _ => File::open("/dev/null").unwrap().into(),
    };
    let variables = ["PATH", "HOME", "LANG"];
    let spawn = Spawn {
        argv: plan.argv.iter().map(Into::into).collect(),
        env: variables.iter().filter_map(|key| Some((key.into(), std::env::var_os(key)?))).collect(),
        cwd: plan.domain.workspace.clone(),
        stdin: input,
        stdout: rustix::io::dup(rustix::stdio::stdout()).unwrap(),
        stderr: rustix::io::dup(rustix::stdio::stderr()).unwrap(),
        tty: false,
    };
    let pid = match launcher.spawn(spawn) {
        Ok(pid) => pid,
        Err(error) => {
            egress.write(&serde_json::json!({"spawn": error.to_string()}));
            return 127;
        }
    };
    egress.write(&serde_json::json!({"pid": pid}));
    if let Also::DialInside(port) = plan.also {
        let egress = Arc::clone(egress);
        std::thread::spawn(move || {
            for _ in 0..100 {
                if let Ok(mut stream) = handle.dial_loopback(port) {
                    let mut text = String::new();
                    let _ = stream.read_to_string(&mut text);
                    egress.write(&serde_json::json!({"inside": text}));
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
    match exits.next().await {
        Ok(exit) if exit.pid == pid => i32::from(exit.code),
        Ok(exit) => panic!("the end of somebody else: {exit:?}"),
        Err(_) => 70,
    }
}

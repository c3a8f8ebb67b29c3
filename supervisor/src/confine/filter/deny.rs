//! What no agent needs and many an escape began with.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use crate::confine::{ablation::Wall, sys::Instruction};

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET: TargetArch = TargetArch::aarch64;

/// Rings submit calls that no filter sees.
const IO_URING: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Other processes' memory and descriptors.
const OTHER_PROCESSES: [libc::c_long; 6] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
];

/// Namespaces, mounts, roots.
const NAMESPACES: [libc::c_long; 13] = [
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    467, // open_tree_attr, Linux 6.15
];

/// Kernel surfaces that need a privilege nobody here has, or hand one out.
const KERNEL: [libc::c_long; 25] = [
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_lookup_dcookie,
];

const NEW_NAMESPACE: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
const CLONE_NEWTIME: u64 = 0x80;

/// Memory, messages and semaphores by number and name. Landlock does not know them, so they are
/// closed where they are shared with the machine.
const IPC: [libc::c_long; 13] = [
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Typing into a terminal somebody else reads.
const TERMINAL_REQUESTS: [u64; 2] = [0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */];

/// What Landlock's signal scope holds from ABI 6 on, and the filter only as far as numbers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::confine) enum SignalScope {
    ByLandlock,
    /// No scope: the numbers of the supervisor's processes are refused as far as a filter can.
    ByNumber {
        supervisor: i32,
    },
}

/// Whose System V and POSIX message objects the agent would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::confine) enum Ipc {
    /// Those of the sandbox.
    Own,
    /// Those of everybody on the machine.
    Shared,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs, in the order of installation.
pub(in crate::confine) fn programs(scope: SignalScope, ipc: Ipc) -> Result<Vec<Vec<Instruction>>, seccompiler::Error> {
    // seccomp(2) answers clone3 with ENOSYS so that libraries fall back to clone, whose flags are
    // in a register.
    let mut missing = Rules::new();
    missing.insert(libc::SYS_clone3, Vec::new());
    Ok(vec![compile(denied(scope, ipc)?, libc::EPERM)?, compile(missing, libc::ENOSYS)?])
}

/// The programs that will probably be wanted, compiled while there is nothing else to do.
pub(in crate::confine) struct Prepared {
    scope: SignalScope,
    ipc: Ipc,
    programs: Option<Vec<Vec<Instruction>>>,
}

impl Prepared {
    /// For these circumstances.
    pub(in crate::confine) fn new(scope: SignalScope, ipc: Ipc) -> Self {
        // What does not compile is told by whoever needs it.
        Self { scope, ipc, programs: programs(scope, ipc).ok() }
    }

    /// The programs for these circumstances, whatever was prepared.
    pub(in crate::confine) fn programs(self, scope: SignalScope, ipc: Ipc) -> Result<Vec<Vec<Instruction>>, seccompiler::Error> {
        match self.programs {
            Some(programs) if (self.scope, self.ipc) == (scope, ipc) => Ok(programs),
            _ => programs(scope, ipc),
        }
    }
}

fn denied(scope: SignalScope, ipc: Ipc) -> Result<Rules, seccompiler::Error> {
    let mut rules = Rules::new();
    let mut whole = |numbers: &[libc::c_long]| {
        for number in numbers {
            rules.insert(*number, Vec::new());
        }
    };
    whole(&KERNEL);
    if ipc == Ipc::Shared {
        whole(&IPC);
    }
    #[cfg(target_arch = "x86_64")]
    whole(&[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt]);
    if Wall::IoUringFilter.stands() {
        whole(&IO_URING);
    }
    if Wall::PtraceFilter.stands() {
        whole(&OTHER_PROCESSES);
    }
    if Wall::NamespaceFilter.stands() {
        whole(&NAMESPACES);
        let bits = |bit: &i32| any_bit(0, *bit as u64);
        rules.insert(libc::SYS_clone, NEW_NAMESPACE.iter().map(bits).collect::<Result<_, _>>()?);
        let mut unshare: Vec<SeccompRule> = NEW_NAMESPACE.iter().map(bits).collect::<Result<_, _>>()?;
        unshare.push(any_bit(0, CLONE_NEWTIME)?);
        rules.insert(libc::SYS_unshare, unshare);
    }
    rules.insert(libc::SYS_ioctl, TERMINAL_REQUESTS.iter().map(|request| equal(1, *request)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_prlimit64, vec![rule(0, SeccompCmpOp::Ne, 0)?]);
    if let SignalScope::ByNumber { supervisor } = scope {
        by_number(&mut rules, supervisor)?;
    }
    Ok(rules)
}

/// A thread's number addresses its process too, and those are not known here: reported as
/// `no-signal-scope`.
fn by_number(rules: &mut Rules, supervisor: i32) -> Result<(), seccompiler::Error> {
    let pid = u64::from(supervisor as u32);
    let everybody = u64::from(u32::MAX);
    let group = u64::from(supervisor.wrapping_neg() as u32);
    rules.insert(libc::SYS_kill, vec![equal(0, pid)?, equal(0, everybody)?, equal(0, group)?]);
    for number in [libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_open] {
        rules.insert(number, vec![equal(0, pid)?]);
    }
    rules.insert(libc::SYS_tkill, Vec::new());
    // F_SETOWN, F_SETSIG, F_SETOWN_EX: who gets SIGIO, and as what.
    let own: [u64; 3] = [8, 10, 15];
    rules.insert(libc::SYS_fcntl, own.iter().map(|command| equal(1, *command)).collect::<Result<_, _>>()?);
    Ok(())
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(seccompiler::Error::Backend)?;
    SeccompRule::new(vec![condition]).map_err(seccompiler::Error::Backend)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    rule(argument, SeccompCmpOp::Eq, value)
}

fn any_bit(argument: u8, bit: u64) -> Result<SeccompRule, seccompiler::Error> {
    rule(argument, SeccompCmpOp::MaskedEq(bit), bit)
}

fn compile(rules: Rules, errno: i32) -> Result<Vec<Instruction>, seccompiler::Error> {
    let denied = SeccompAction::Errno(errno as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, TARGET).map_err(seccompiler::Error::Backend)?;
    let program: BpfProgram = filter.try_into().map_err(seccompiler::Error::Backend)?;
    Ok(program.into_iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

//! A small assembler for classic BPF over `struct seccomp_data`.
//!
//! The accumulator holds the system call's number between rules. A block may load anything, since
//! each of its ways ends in a verdict.

use crate::confine::sys::Instruction;

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// Fails with this number; 0 answers success without doing anything.
    Errno(i32),
    /// The broker answers.
    Notify,
    Kill,
}

impl Verdict {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA),
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JUMP_ANY: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Offset of the low half of an argument. Both architectures are little endian.
const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}

/// A program being written.
#[derive(Default)]
pub(crate) struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(Instruction { code, jt, jf, k });
    }

    /// Ends here.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        self.push(RETURN, verdict.code(), 0, 0);
    }

    /// Loads the number, after the architecture was found to be `expected` or else `verdict`.
    pub(crate) fn start(&mut self, expected: u32, otherwise: Verdict) {
        self.push(LOAD, ARCHITECTURE, 0, 0);
        self.push(JUMP_EQUAL, expected, 1, 0);
        self.verdict(otherwise);
        self.push(LOAD, NUMBER, 0, 0);
    }

    /// Numbers above `last`.
    pub(crate) fn above(&mut self, last: u32, verdict: Verdict) {
        self.push(JUMP_GREATER, last, 0, 1);
        self.verdict(verdict);
    }

    /// One system call, whatever its arguments.
    pub(crate) fn on(&mut self, number: libc::c_long, verdict: Verdict) {
        self.push(JUMP_EQUAL, number as u32, 0, 1);
        self.verdict(verdict);
    }

    /// One system call, decided by its arguments; what the body leaves open gets `otherwise`.
    pub(crate) fn block(&mut self, number: libc::c_long, otherwise: Verdict, body: impl FnOnce(&mut Self)) {
        let jump = self.0.len();
        self.push(JUMP_EQUAL, number as u32, 0, 0);
        body(self);
        self.verdict(otherwise);
        let length = self.0.len() - jump - 1;
        self.0[jump].jf = u8::try_from(length).expect("a block has fewer than 256 instructions: its author counts them");
    }

    /// The low half of an argument equals `value`.
    pub(crate) fn when_equal(&mut self, argument: u32, value: u32, verdict: Verdict) {
        self.push(LOAD, low(argument), 0, 0);
        self.push(JUMP_EQUAL, value, 0, 1);
        self.verdict(verdict);
    }

    /// The masked low half of an argument equals `value`.
    pub(crate) fn when_masked(&mut self, argument: u32, mask: u32, value: u32, verdict: Verdict) {
        self.push(LOAD, low(argument), 0, 0);
        self.push(AND, mask, 0, 0);
        self.push(JUMP_EQUAL, value, 0, 1);
        self.verdict(verdict);
    }

    /// Any of these bits is set in the low half of an argument.
    pub(crate) fn when_any(&mut self, argument: u32, bits: u32, verdict: Verdict) {
        self.push(LOAD, low(argument), 0, 0);
        self.push(JUMP_ANY, bits, 0, 1);
        self.verdict(verdict);
    }

    /// An argument, all 64 bits of it, is not zero.
    pub(crate) fn when_set(&mut self, argument: u32, verdict: Verdict) {
        for half in [low(argument), low(argument) + 4] {
            self.push(LOAD, half, 0, 0);
            self.push(JUMP_EQUAL, 0, 1, 0);
            self.verdict(verdict);
        }
    }

    /// Two arguments have these low halves.
    pub(crate) fn when_both(&mut self, (first, one): (u32, u32), (second, two): (u32, u32), verdict: Verdict) {
        self.push(LOAD, low(first), 0, 0);
        self.push(JUMP_EQUAL, one, 0, 3);
        self.push(LOAD, low(second), 0, 0);
        self.push(JUMP_EQUAL, two, 0, 1);
        self.verdict(verdict);
    }

    /// The finished program.
    pub(crate) fn finish(mut self, otherwise: Verdict) -> Vec<Instruction> {
        self.verdict(otherwise);
        self.0
    }
}

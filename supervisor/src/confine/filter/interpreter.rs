//! Runs a filter the way the kernel does: classic BPF over `struct seccomp_data` (`seccomp(2)`).

use crate::confine::sys::Instruction;

/// What a filter is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    fn bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&(self.number as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.architecture.to_ne_bytes());
        for (index, argument) in self.arguments.iter().enumerate() {
            bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        bytes
    }
}

/// The verdict; panics on an instruction that no filter of ours has, and on a way that does not end.
pub(super) fn run(program: &[Instruction], call: Call) -> u32 {
    let data = call.bytes();
    let (mut accumulator, mut index) = (0_u32, 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = program[index];
        index += 1;
        let jump = |taken: bool| usize::from(if taken { jt } else { jf });
        match u32::from(code) {
            0x20 => accumulator = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => accumulator &= k,
            0x05 => index += k as usize,
            0x15 => index += jump(accumulator == k),
            0x25 => index += jump(accumulator > k),
            0x35 => index += jump(accumulator >= k),
            0x45 => index += jump(accumulator & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x} at {}", index - 1),
        }
    }
}

/// The strictest verdict of several filters, as the kernel takes it (signed, without the data).
pub(super) fn run_all(programs: &[Vec<Instruction>], call: Call) -> u32 {
    let verdicts = programs.iter().map(|program| run(program, call));
    verdicts.min_by_key(|verdict| (verdict & libc::SECCOMP_RET_ACTION_FULL) as i32).expect("there is a filter")
}

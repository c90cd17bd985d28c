//! A TDX module and a host for tests: every call is recorded, and a function of the test answers it.

use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

use crate::call::{HostRegisters, LeafRegisters, Tdcall};
use crate::status::Status;

/// One call, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To the module.
    Module(LeafRegisters),
    /// To the host.
    Host(HostRegisters),
}

/// Answers in the module's place: changes the registers to what the call leaves in them. For calls to the host the result is the module's
/// status; for calls to the module RAX is.
type Answer = Box<dyn FnMut(&mut Call) -> Status>;

/// Records and answers.
pub struct Fake {
    answer: RefCell<Answer>,
    calls: RefCell<Vec<Call>>,
}

impl Fake {
    /// A module that answers by `answer`.
    pub fn new(answer: impl FnMut(&mut Call) -> Status + 'static) -> Self {
        Self {
            answer: RefCell::new(Box::new(answer)),
            calls: RefCell::default(),
        }
    }

    /// A module whose calls all succeed and give `registers`.
    pub fn module(registers: LeafRegisters) -> Self {
        Self::new(move |call| {
            *call = Call::Module(registers);
            Status(0)
        })
    }

    /// A host that answers every call by `answer`.
    pub fn host(mut answer: impl FnMut(&mut HostRegisters) + 'static) -> Self {
        Self::new(move |call| {
            if let Call::Host(registers) = call {
                answer(registers);
            }
            Status(0)
        })
    }

    /// The calls so far, as they were made.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// The calls to the host so far, as they were made.
    pub fn host_calls(&self) -> Vec<HostRegisters> {
        let host = |call: &Call| match call {
            Call::Host(registers) => Some(*registers),
            Call::Module(_) => None,
        };
        self.calls.borrow().iter().filter_map(host).collect()
    }
}

impl Tdcall for Fake {
    unsafe fn module(&self, registers: LeafRegisters) -> LeafRegisters {
        let mut call = Call::Module(registers);
        self.calls.borrow_mut().push(call);
        (self.answer.borrow_mut())(&mut call);
        match call {
            Call::Module(registers) => registers,
            Call::Host(_) => registers,
        }
    }

    unsafe fn host(&self, registers: &mut HostRegisters) -> Status {
        let mut call = Call::Host(*registers);
        self.calls.borrow_mut().push(call);
        let status = (self.answer.borrow_mut())(&mut call);
        if let Call::Host(answered) = call {
            *registers = answered;
        }
        status
    }
}

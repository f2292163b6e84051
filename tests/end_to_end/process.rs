//! Owns a process, which ends no later than the test that started it, however that ends.
//! Never starts one. Enter at [`Process`].

use std::ops::{Deref, DerefMut};
use std::process::Child;

pub(crate) struct Process(pub(crate) Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = self.wait();
    }
}

//! Owns what the kernel knows of this process. Never asked on the loop's thread: it reads files. Enter at
//! [`Vitals::read`].

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// One reading. What the kernel does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    pub cpu_us: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub descriptors: u64,
    pub descriptors_max: u64,
}

impl Vitals {
    #[must_use]
    pub fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let (virtual_pages, resident_pages) = of_statm(&pages);
        let page = rustix::param::page_size() as u64;
        Self {
            cpu_us: (cpu.tv_sec * 1_000_000 + cpu.tv_nsec / 1_000).max(0).cast_unsigned(),
            resident_bytes: resident_pages * page,
            virtual_bytes: virtual_pages * page,
            // Less the one that looks.
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
            descriptors_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }
}

/// Pages: virtual and resident (proc(5), `statm`).
fn of_statm(text: &str) -> (u64, u64) {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_vitals() {
        assert_eq!(of_statm("3 2 1 0 0 0 0\n"), (3, 2));
        assert_eq!(of_statm(""), (0, 0));
        let vitals = Vitals::read();
        assert!(vitals.resident_bytes > 100_000 && vitals.virtual_bytes >= vitals.resident_bytes, "{vitals:?}");
        assert!(vitals.descriptors >= 1 && vitals.descriptors <= vitals.descriptors_max, "{vitals:?}");
    }
}

//! Owns what the kernel knows of this process. Never asked on the loop's thread: it reads files. Enter at
//! [`Vitals::read`].

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::{fs, io};

/// One reading. What the kernel does not tell is `None`: a 0 would be taken for a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    pub cpu_us: u64,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub descriptors: Option<u64>,
    pub descriptors_max: u64,
}

impl Vitals {
    #[must_use]
    pub fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| of_statm(&text));
        let page = rustix::param::page_size() as u64;
        let descriptors_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // Less the one that looks.
        let descriptors = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1) as u64);
        Self {
            cpu_us: (cpu.tv_sec * 1_000_000 + cpu.tv_nsec / 1_000).max(0).cast_unsigned(),
            resident_bytes: pages.map(|(_, resident)| resident * page),
            virtual_bytes: pages.map(|(all, _)| all * page),
            descriptors: counted(descriptors, descriptors_max),
            descriptors_max,
        }
    }
}

/// Pages: virtual and resident (proc(5), `statm`).
fn of_statm(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

/// Who cannot look since none is left, knows how many there are: all.
fn counted(found: io::Result<u64>, most: u64) -> Option<u64> {
    match found {
        Ok(count) => Some(count),
        Err(e) => (Errno::from_io_error(&e) == Some(Errno::MFILE)).then_some(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_vitals() {
        let vitals = Vitals::read();
        assert!(vitals.resident_bytes.unwrap() > 100_000, "{vitals:?}");
        assert!(vitals.virtual_bytes >= vitals.resident_bytes, "{vitals:?}");
        assert!((1..=vitals.descriptors_max).contains(&vitals.descriptors.unwrap()), "{vitals:?}");
    }

    #[test]
    fn what_is_not_known_is_no_number() {
        assert_eq!(of_statm("3 2 1 0 0 0 0\n"), Some((3, 2)));
        for odd in ["", "3", "x 2"] {
            assert_eq!(of_statm(odd), None, "{odd:?}");
        }
        assert_eq!(counted(Ok(7), 10), Some(7));
        assert_eq!(counted(Err(Errno::MFILE.into()), 10), Some(10));
        assert_eq!(counted(Err(Errno::NFILE.into()), 10), None);
    }
}

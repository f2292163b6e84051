//! Owns paging: which page is asked for, and the absolute links to its neighbours. Never counts rows itself.
//! Enter at [`PageRequest::parse`].

use super::reply::Reply;
use crate::http::form_pairs;
use serde::Serialize;

/// Which page, and what its links are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub page: u64,
    /// 1 to 100.
    pub size: u64,
    /// `scheme://host/path`, for the links; the path alone where a client of HTTP/1.0 has named no host.
    pub address: String,
    /// The query string's other parameters, as they came.
    pub others: String,
}

const SIZE_DEFAULT: u64 = 20;
const SIZE_MAX: u64 = 100;

impl PageRequest {
    /// Reads `page` and `page_size` of a query string. A size that is no number is the default; a page that is no
    /// number from 1 up is 404, as one past the end is.
    pub fn parse(address: String, query: &str) -> Result<Self, Reply> {
        let (mut page, mut size, mut others) = (1, SIZE_DEFAULT, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, text)) = form_pairs(pair).next() else { continue };
            match (name.as_ref(), text.as_ref()) {
                ("page", text) => page = number(text).filter(|n| *n > 0).ok_or_else(no_such_page)?,
                ("page_size", text) => {
                    size = any_size(text).clamp(1, SIZE_MAX);
                    others.push(pair); // kept in the links, like what follows
                }
                ("token", _) => {} // never repeat one, whoever put it there
                _ => others.push(pair),
            }
        }
        Ok(Self { page, size, address, others: others.join("&") })
    }

    #[must_use]
    pub fn offset(&self) -> u64 {
        (self.page - 1).saturating_mul(self.size)
    }

    fn link(&self, page: u64) -> String {
        let mut parts = Vec::new();
        if page > 1 {
            parts.push(format!("page={page}"));
        }
        if !self.others.is_empty() {
            parts.push(self.others.clone());
        }
        let mark = if parts.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.address, parts.join("&"))
    }

    /// Wraps the rows of this page; 404 where it lies past the end (page 1 of nothing is a page).
    pub fn wrap<T: Serialize>(&self, count: u64, results: Vec<T>) -> Result<Page<T>, Reply> {
        if self.page > 1 && self.offset() >= count {
            return Err(no_such_page());
        }
        let last = count.div_ceil(self.size).max(1);
        Ok(Page {
            count,
            next: (self.page < last).then(|| self.link(self.page + 1)),
            previous: (self.page > 1).then(|| self.link(self.page - 1)),
            results,
        })
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whatever was written: too small and too large are clamped later, what is no number is the default.
fn any_size(text: &str) -> u64 {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    match (digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty(), negative) {
        (false, _) => SIZE_DEFAULT,
        (true, true) => 0,
        (true, false) => digits.parse().unwrap_or(u64::MAX),
    }
}

fn no_such_page() -> Reply {
    Reply::not_found("Invalid page.")
}

#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub count: u64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> PageRequest {
        PageRequest::parse("http://h/api/notifications/".to_owned(), query).unwrap()
    }

    #[test]
    fn links_keep_the_other_parameters() {
        let asked = page("is_read=false&page=2&page_size=10");
        assert_eq!((asked.page, asked.size, asked.offset()), (2, 10, 10));
        let wrapped = asked.wrap(25, vec![0; 10]).unwrap();
        assert_eq!(wrapped.next.as_deref(), Some("http://h/api/notifications/?page=3&is_read=false&page_size=10"));
        assert_eq!(wrapped.previous.as_deref(), Some("http://h/api/notifications/?is_read=false&page_size=10"));
        let escaped = page("p%61ge=%32&page_size=%31%30&%74oken=x&type=a%26b");
        assert_eq!((escaped.page, escaped.size, escaped.others.as_str()), (2, 10, "page_size=%31%30&type=a%26b"));
        assert_eq!(page("page=3").wrap(41, vec![0]).unwrap().next, None);
    }

    #[test]
    fn sizes_are_clamped_and_pages_must_exist() {
        let sizes =
            [("0", 1), ("-5", 1), ("1000", 100), ("99999999999999999999999", 100), ("x", 20), ("", 20), ("7", 7)];
        for (text, size) in sizes {
            assert_eq!(page(&format!("page_size={text}")).size, size, "{text:?}");
        }
        for bad in ["page=0", "page=x", "page=-1", "page=", "page=99999999999999999999999"] {
            assert_eq!(PageRequest::parse(String::new(), bad).unwrap_err().status, 404, "{bad}");
        }
        assert_eq!(page("page=2").wrap(20, Vec::<u8>::new()).unwrap_err().status, 404);
        assert!(page("").wrap(0, Vec::<u8>::new()).is_ok());
    }
}

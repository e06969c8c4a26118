//! The text of lists and watches into objects. Whatever an object holds, only that object is at fault.

use std::fmt;

use assay_core::model::PodId;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::kind::Kind;
use super::object::{Found, Object, Unreadable};
use super::slim::{IDENTITY, Keep};

/// A part of a list.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    /// The moment that the list shows.
    pub(super) version: String,
    /// Where the rest is, if there is more.
    pub(super) rest: Option<String>,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Line {
    /// An object was created or changed.
    Applied(Found, Option<String>),
    /// An object is gone.
    Deleted(PodId, Option<String>),
    /// Nothing happened up to this moment.
    Bookmark(String),
    /// The watch ends.
    Failed(Status),
}

/// The API server's word on a call that it did not carry out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) details: Details,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Details {
    pub(super) retry_after_seconds: Option<u64>,
}

/// Reads a part of a list.
pub(super) fn page(kind: Kind, text: &[u8]) -> Result<Page, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let page = List(kind).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(page)
}

/// Reads a line of a watch.
pub(super) fn line(kind: Kind, text: &[u8]) -> Line {
    let garbage = |problem: String| Line::Applied(Err(Unreadable::nameless(kind, problem)), None);
    let event: Event<'_> = match serde_json::from_slice(text) {
        Ok(event) => event,
        Err(error) => return garbage(format!("a line that is no event: {error}")),
    };
    let keep = match event.kind {
        "DELETED" | "BOOKMARK" => &IDENTITY,
        "ERROR" => &Keep::All,
        _ => Keep::of(kind),
    };
    let mut deserializer = serde_json::Deserializer::from_str(event.object.get());
    let value = match keep.deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(error) => return garbage(format!("an object that is no JSON: {error}")),
    };
    let version = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let version = version.filter(|version| !version.is_empty()).map(str::to_owned);
    match (event.kind, version) {
        ("ADDED" | "MODIFIED", version) => Line::Applied(Object::read(kind, value), version),
        ("DELETED", version) => match Object::id_of(&value) {
            Some(id) => Line::Deleted(id, version),
            None => garbage("an object without a name is gone".to_owned()),
        },
        ("BOOKMARK", Some(version)) => Line::Bookmark(version),
        ("ERROR", _) => Line::Failed(serde_json::from_value(value).unwrap_or_default()),
        (other, _) => garbage(format!("an event of unknown type {other:?}")),
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Reads the objects of a list as they come, so that no more than one is held in full.
struct List(Kind);

impl<'de> DeserializeSeed<'de> for List {
    type Value = Page;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Page, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Page;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Page, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Meta {
            resource_version: String,
            #[serde(rename = "continue")]
            rest: String,
        }
        let mut page = Page::default();
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "metadata" => {
                    let meta: Meta = fields.next_value()?;
                    page.version = meta.resource_version;
                    page.rest = Some(meta.rest).filter(|rest| !rest.is_empty());
                }
                "items" => page.found = fields.next_value_seed(Items(self.0))?,
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(page)
    }
}

struct Items(Kind);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Found>, D::Error> {
        // Go writes an empty list as nothing, too.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_unit<E>(self) -> Result<Vec<Found>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Found>, A::Error> {
        let mut found = Vec::new();
        while let Some(value) = items.next_element_seed(Keep::of(self.0))? {
            found.push(Object::read(self.0, value));
        }
        Ok(found)
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// Bytes of `held` that were given out as lines.
    given: usize,
    /// Bytes of `held` that hold no end of a line.
    searched: usize,
}

/// Longest line. etcd holds no object beyond 1.5 MB, and the API server takes none beyond 3 MB.
const LINE_BYTES_MAX: usize = 8 << 20;
/// A buffer that grew beyond this for one large object is not kept.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// A line that is too long to be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Lines {
    /// Takes in what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        self.held.drain(..self.given);
        self.searched -= self.given;
        self.given = 0;
        if self.held.is_empty() && self.held.capacity() > KEPT_BYTES_MAX {
            self.held = Vec::new();
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() > LINE_BYTES_MAX && !bytes.contains(&b'\n') { Err(LineTooLong) } else { Ok(()) }
    }

    /// The next whole line, without its end; empty ones are passed over.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let end = self.held.get(self.searched..)?.iter().position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| self.searched + end) else {
                self.searched = self.held.len();
                return None;
            };
            let start = std::mem::replace(&mut self.given, end + 1);
            self.searched = self.given;
            if end > start {
                return self.held.get(start..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for part in parts {
            lines.push(part.as_bytes()).unwrap();
            while let Some(line) = lines.next() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn lines_are_cut_wherever_the_parts_end() {
        assert_eq!(lines(&["one\ntwo\n", "thr", "", "ee\n\n", "four"]), ["one", "two", "three"]);
        assert_eq!(lines(&["a", "b", "c", "\nd\n"]), ["abc", "d"]);
        let mut long = Lines::default();
        let part = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(long.push(&part), Ok(()));
        assert_eq!(long.push(b"x"), Err(LineTooLong));
    }

    #[test]
    fn a_list_is_read_with_what_is_wrong_in_it() {
        let text = br#"{"kind":"NodeList","items":[{"metadata":{"name":"a"}},7,{"spec":{}}],"metadata":{"continue":"c","resourceVersion":"5"}}"#;
        let page = page(Kind::Node, text).unwrap();
        assert_eq!((page.version.as_str(), page.rest.as_deref()), ("5", Some("c")));
        let names = page.found.iter().map(|found| match found {
            Ok(object) => object.id.name.to_string(),
            Err(unreadable) => unreadable.problem.clone(),
        });
        let nameless = "expected a name, found none";
        assert_eq!(names.collect::<Vec<_>>(), ["a", nameless, nameless]);
        let empty = super::page(Kind::Node, br#"{"items":null,"metadata":{"resourceVersion":"5"}}"#).unwrap();
        assert_eq!((empty.found.len(), empty.rest), (0, None));
        assert!(super::page(Kind::Node, b"{\"items\":[").is_err());
    }

    #[test]
    fn lines_of_a_watch_are_told_apart() {
        let read = |text: &str| line(Kind::Node, text.as_bytes());
        let applied = read(r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#);
        assert!(matches!(applied, Line::Applied(Ok(_), Some(version)) if version == "7"));
        let deleted =
            read(r#"{"object":{"metadata":{"name":"a","resourceVersion":"8"},"spec":7},"type":"DELETED"}"#);
        assert!(matches!(deleted, Line::Deleted(id, _) if &*id.name == "a"));
        let bookmark =
            read(r#"{"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"9"}}}"#);
        assert!(matches!(bookmark, Line::Bookmark(version) if version == "9"));
        let gone = read(
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
        );
        assert!(matches!(gone, Line::Failed(status) if status.code == 410 && status.reason == "Expired"));
        for garbage in ["", "{", "[]", r#"{"type":"ODD","object":{}}"#, r#"{"type":"DELETED","object":{}}"#] {
            assert!(matches!(read(garbage), Line::Applied(Err(_), None)), "{garbage}");
        }
    }
}

//! A small XML tree: what the filter compares. Document types, processing instructions and entities other than
//! XML's own are refused, so that no parser after us can see another document than we did.

use quick_xml::{
    Reader,
    events::{BytesRef, BytesStart, Event},
};

const DEPTH_MAX: usize = 32;
const ELEMENTS_MAX: usize = 20_000;

/// One element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// With its prefix, if any.
    pub name: String,
    /// In the document's order.
    pub attributes: Vec<(String, String)>,
    /// All its own text, without white space around it.
    pub text: String,
    /// In the document's order.
    pub children: Vec<Element>,
}

/// A text that is no XML document of the plain kind that libvirt writes.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// The parser refused it.
    #[error("it is not well-formed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It uses XML that libvirt never writes.
    #[error("it has {0}, which libvirt never writes")]
    Exotic(&'static str),
    /// It is deeper or has more elements than any domain.
    #[error("it is larger than any domain's")]
    TooLarge,
}

impl Element {
    /// The one root element of `text`.
    ///
    /// # Errors
    /// [`BadDocument`].
    pub fn parse(text: &str) -> Result<Self, BadDocument> {
        let mut reader = Reader::from_str(text);
        let mut tree = Tree { open: vec![Self::default()], count: 0 };
        loop {
            match reader.read_event().map_err(malformed)? {
                Event::Eof => return tree.root(),
                event => tree.take(event)?,
            }
        }
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

fn malformed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BadDocument {
    BadDocument::Malformed(cause.into())
}

/// The elements that are open; the first stands for the document.
struct Tree {
    open: Vec<Element>,
    count: usize,
}

impl Tree {
    fn take(&mut self, event: Event<'_>) -> Result<(), BadDocument> {
        match event {
            Event::Start(start) => self.begin(element(&start)?)?,
            Event::Empty(start) => {
                self.begin(element(&start)?)?;
                self.end()?;
            }
            Event::End(_) => self.end()?,
            Event::Text(text) => self.text(&text.decode().map_err(malformed)?)?,
            Event::GeneralRef(reference) => self.text(&resolve(&reference)?)?,
            Event::Comment(_) | Event::Decl(_) => {}
            Event::CData(_) => return Err(BadDocument::Exotic("a CDATA section")),
            Event::PI(_) => return Err(BadDocument::Exotic("a processing instruction")),
            Event::DocType(_) => return Err(BadDocument::Exotic("a document type")),
            Event::Eof => {}
        }
        Ok(())
    }

    fn begin(&mut self, element: Element) -> Result<(), BadDocument> {
        self.count += 1;
        if self.open.len() > DEPTH_MAX || self.count > ELEMENTS_MAX {
            return Err(BadDocument::TooLarge);
        }
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) -> Result<(), BadDocument> {
        let mut done = self.open.pop().ok_or(BadDocument::Exotic("an end without a start"))?;
        done.text = done.text.trim().to_owned();
        let parent = self.open.last_mut().ok_or(BadDocument::Exotic("an end without a start"))?;
        parent.children.push(done);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), BadDocument> {
        let inner = self.open.last_mut().ok_or(BadDocument::Exotic("text outside"))?;
        inner.text.push_str(text);
        Ok(())
    }

    fn root(mut self) -> Result<Element, BadDocument> {
        let document = self.open.pop().filter(|_| self.open.is_empty());
        let mut document = document.ok_or(BadDocument::Exotic("an element without end"))?;
        match (document.children.pop(), document.children.is_empty(), document.text.trim()) {
            (Some(root), true, "") => Ok(root),
            _ => Err(BadDocument::Exotic("not exactly one root element")),
        }
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, BadDocument> {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(malformed);
    let attributes = start.attributes().map(|attribute| {
        let attribute = attribute.map_err(malformed)?;
        Ok((utf8(attribute.key.as_ref())?, attribute.unescape_value().map_err(malformed)?.into_owned()))
    });
    Ok(Element {
        name: utf8(start.name().as_ref())?,
        attributes: attributes.collect::<Result<_, BadDocument>>()?,
        ..Element::default()
    })
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, BadDocument> {
    if let Some(character) = reference.resolve_char_ref().map_err(malformed)? {
        return Ok(character.to_string());
    }
    let name = reference.decode().map_err(malformed)?;
    let known = quick_xml::escape::resolve_xml_entity(&name);
    known.map(str::to_owned).ok_or(BadDocument::Exotic("an entity of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_entities_and_attributes_are_read_as_they_mean() {
        let root = Element::parse("<a x='1&amp;2'>\n t&lt;<b/> &#65;\n</a>").unwrap();
        assert_eq!(root.attribute("x"), Some("1&2"));
        assert!(root.text.starts_with("t<") && root.text.ends_with('A'), "{:?}", root.text);
        assert_eq!(root.children.len(), 1);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let bomb = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        let documents = [
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<a>&x;</a>",
            "<a><![CDATA[x]]></a>",
            "<a/><b/>",
            "<a><?xml-stylesheet href='x'?></a>",
            "<a>",
            "<a x='1' x='2'/>",
            "",
            &bomb,
        ];
        for document in documents {
            assert!(Element::parse(document).is_err(), "{document} was taken");
        }
    }
}

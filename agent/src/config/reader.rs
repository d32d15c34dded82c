//! Reads typed options out of the tree, so that each mistake has a path and a line.
//!
//! Two things differ from an ordinary format. A reference such as `${file:…}` is replaced only where a
//! [`Secret`](crate::secret::Secret) is asked for: no other option can take one, so no value of a secret can reach a
//! message or a `Debug`. And an enum is read from a map by its key `kind`.

use std::path::Path;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::expand;
use super::mistake::Mistake;
use super::tree::{Key, Node, Value};

/// The key that tells the variant of an enum.
const TAG: &str = "kind";

/// One node, read in the folder of the file.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    node: &'a Node,
    folder: &'a Path,
    /// The tag has been read: the rest of the map belongs to the variant.
    tagged: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a Node, folder: &'a Path) -> Self {
        Self { node, folder, tagged: false }
    }

    fn inner(&self, node: &'a Node) -> Self {
        Self::new(node, self.folder)
    }

    fn wrong<T>(&self, expected: &dyn serde::de::Expected) -> Result<T, Mistake> {
        let found = self.node.value.kind();
        Err(Mistake::new(self.node.place, format!("expected {expected}, found {found}")))
    }

    /// A text that may be shown. References are for secrets only.
    fn plain(&self) -> Result<&'a str, Mistake> {
        match &self.node.value {
            Value::Text(text) if expand::refers(text) => {
                Err(self.mistake("`${…}` is only replaced in options that hold a secret; write the value itself here"))
            }
            Value::Text(text) => Ok(text),
            Value::Bool(_) | Value::Unsigned(_) | Value::Signed(_) | Value::Float(_) => {
                Err(self.mistake(format!("expected a text, found {}; put it into quotes", self.node.value.kind())))
            }
            other => Err(self.mistake(format!("expected a text, found {}", other.kind()))),
        }
    }

    fn secret(&self) -> Result<String, Mistake> {
        match &self.node.value {
            Value::Text(text) => expand::expand(text, self.folder).map_err(|message| self.mistake(message)),
            _ => self.plain().map(str::to_owned),
        }
    }

    fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(self.node.place, message)
    }

    fn list<V: Visitor<'a>>(&self, nodes: &'a [Node], visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_seq(Items { reader: *self, nodes: nodes.iter().enumerate() })
    }

    fn map<V: Visitor<'a>>(&self, entries: &'a [(Key, Node)], visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_map(Entries { reader: *self, entries: entries.iter(), value: None })
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
            match self.node.value {
                Value::Unsigned(number) => visitor.visit_u64(number),
                Value::Signed(number) => visitor.visit_i64(number),
                Value::Float(number) => visitor.visit_f64(number),
                _ => return self.wrong(&visitor),
            }
            .map_err(|mistake: Mistake| mistake.at(self.node.place))
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
            visitor.visit_borrowed_str(self.plain()?).map_err(|mistake: Mistake| mistake.at(self.node.place))
        })*
    };
}

impl<'a> Deserializer<'a> for Reader<'a> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(_) => visitor.visit_borrowed_str(self.plain()?),
            Value::List(nodes) => self.list(nodes, visitor),
            Value::Map(entries) => self.map(entries, visitor),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.place))
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        if name == "Secret" {
            let text = self.secret()?;
            return visitor.visit_newtype_struct(StrDeserializer::<Mistake>::new(&text));
        }
        visitor.visit_newtype_struct(self).map_err(|mistake: Mistake| mistake.at(self.node.place))
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::List(nodes) => self.list(nodes, visitor).map_err(|mistake| mistake.at(self.node.place)),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _length: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Map(entries) => self.map(entries, visitor).map_err(|mistake| mistake.at(self.node.place)),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Map(_) => self.deserialize_map(visitor),
            // An option whose keys are all optional, written as `name:` and nothing after it.
            Value::Null => visitor.visit_map(Entries { reader: self, entries: [].iter(), value: None }),
            _ => Err(self.mistake(format!("expected a map, found {}", self.node.value.kind()))),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.place))
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Text(_) => visitor.visit_enum(BorrowedStrDeserializer::<Mistake>::new(self.plain()?)),
            Value::Map(_) => visitor.visit_enum(Tagged { reader: self }),
            _ => self.wrong(&visitor),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.place))
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { <V: Visitor<'a>> bytes byte_buf unit unit_struct }
}

struct Items<'a> {
    reader: Reader<'a>,
    nodes: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some((index, node)) = self.nodes.next() else { return Ok(None) };
        seed.deserialize(self.reader.inner(node))
            .map(Some)
            .map_err(|mistake| mistake.at(node.place).under(&format!("[{index}]")))
    }
}

struct Entries<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        for (key, node) in self.entries.by_ref() {
            if self.reader.tagged && key.text == TAG {
                continue;
            }
            self.value = Some((key, node));
            return seed
                .deserialize(BorrowedStrDeserializer::<Mistake>::new(&key.text))
                .map(Some)
                .map_err(|mistake| mistake.at(key.place));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let Some((key, node)) = self.value.take() else {
            return Err(Mistake::custom("a value was asked for before its key"));
        };
        seed.deserialize(self.reader.inner(node)).map_err(|mistake| mistake.at(node.place).under(&key.text))
    }
}

struct Tagged<'a> {
    reader: Reader<'a>,
}

impl<'a> EnumAccess<'a> for Tagged<'a> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Mistake> {
        let Some(tag) = self.reader.node.get(TAG) else {
            return Err(self.reader.mistake(format!("the key `{TAG}` is missing")));
        };
        let variant = seed.deserialize(self.reader.inner(tag)).map_err(|mistake| mistake.at(tag.place).under(TAG))?;
        Ok((variant, self))
    }
}

impl<'a> VariantAccess<'a> for Tagged<'a> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Mistake> {
        seed.deserialize(Reader { tagged: true, ..self.reader })
    }

    fn tuple_variant<V: Visitor<'a>>(self, _length: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.reader.wrong(&visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        Reader { tagged: true, ..self.reader }.deserialize_map(visitor)
    }
}

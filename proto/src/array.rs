//! Arrays as bytes: `element type u8 | dimensions u8 | length of each, varint | elements as in a row`, NULL included.

use crate::row;
use crate::value::{Element, ValueRef};

/// How deep arrays nest.
pub const DIMENSIONS_MAX: usize = 6;

/// An array taken apart.
#[derive(Clone, Debug)]
pub struct Array<'a> {
    /// What its elements are.
    pub element: Element,
    /// The length of each dimension; none if it is empty.
    pub dimensions: Vec<usize>,
    /// The elements, the last dimension changing fastest.
    pub values: Vec<ValueRef<'a>>,
}

impl<'a> Array<'a> {
    /// An array of one dimension, or an empty one.
    pub fn flat(element: Element, values: Vec<ValueRef<'a>>) -> Array<'a> {
        let dimensions = if values.is_empty() { Vec::new() } else { vec![values.len()] };
        Array { element, dimensions, values }
    }

    /// Its bytes.
    pub fn encode(&self) -> bytes::Bytes {
        let mut out = vec![self.element.number(), self.dimensions.len() as u8];
        self.dimensions.iter().for_each(|d| row::write_varint(&mut out, *d as u64));
        self.values.iter().for_each(|v| row::encode_value(&mut out, *v));
        out.into()
    }

    /// Takes an array apart; none if the bytes are not one.
    pub fn decode(bytes: &'a [u8]) -> Option<Array<'a>> {
        let (&[element, dimensions], mut rest) = bytes.split_first_chunk::<2>()?;
        if usize::from(dimensions) > DIMENSIONS_MAX {
            return None;
        }
        let dimensions: Option<Vec<usize>> =
            (0..dimensions).map(|_| usize::try_from(row::read_varint(&mut rest)?).ok()).collect();
        let dimensions = dimensions?;
        let mut values = Vec::new();
        while !rest.is_empty() {
            values.push(row::decode_value(&mut rest)?);
        }
        let expected = dimensions.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        let expected = if dimensions.is_empty() { 0 } else { expected };
        (expected == values.len()).then_some(Array {
            element: Element::numbered(element)?,
            dimensions,
            values,
        })
    }
}

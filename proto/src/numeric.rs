//! NUMERIC as bytes: an exact decimal whose bytes order as the numbers do, with the scale it is shown with behind.
//!
//! ```text
//! class u8 | negative and positive: exponent u16 (biased), digit pairs + 1 …, 0 | scale u16
//! class: 0 -Infinity, 1 negative, 2 zero, 3 positive, 4 Infinity, 5 NaN
//! ```
//!
//! A number is 0.d1 d2 … × 100^exponent with pairs of decimal digits, the first and the last of them not zero; a
//! negative one has its exponent, pairs and end inverted. So 1.0 and 1.00 differ in their scale alone, which neither
//! comparing nor a key takes in.

use bytes::Bytes;

/// Bytes of the scale, at the end.
const SCALE_BYTES: usize = 2;
const EXPONENT_BIAS: i32 = 0x8000;

/// What a NUMERIC is, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Below every number.
    NegativeInfinity,
    /// Above every number.
    Infinity,
    /// Above everything, and equal to itself.
    NaN,
    /// A number.
    Finite {
        /// Below zero.
        negative: bool,
        /// Pairs of decimal digits behind the point, the first and the last not zero; none for zero.
        pairs: Vec<u8>,
        /// The power of 100 that they are multiplied with.
        exponent: i32,
        /// Decimal digits shown behind the point.
        scale: u16,
    },
}

/// The bytes of a number, or none if its exponent does not fit.
pub fn encode(parts: &Parts) -> Option<Bytes> {
    let (class, negative, pairs, exponent, scale) = match parts {
        Parts::NegativeInfinity => (0, false, &[][..], 0, 0),
        Parts::Infinity => (4, false, &[][..], 0, 0),
        Parts::NaN => (5, false, &[][..], 0, 0),
        Parts::Finite { pairs, scale, .. } if pairs.is_empty() => (2, false, &[][..], 0, *scale),
        Parts::Finite { negative, pairs, exponent, scale } => {
            (if *negative { 1 } else { 3 }, *negative, &pairs[..], *exponent, *scale)
        }
    };
    let mut out = Vec::with_capacity(pairs.len() + 6);
    out.push(class);
    if class == 1 || class == 3 {
        let biased = u16::try_from(exponent.checked_add(EXPONENT_BIAS)?).ok()?;
        let flip = if negative { 0xFF } else { 0 };
        out.extend(biased.to_be_bytes().iter().map(|b| b ^ flip));
        out.extend(pairs.iter().map(|p| (p + 1) ^ flip));
        out.push(flip);
    }
    out.extend_from_slice(&scale.to_be_bytes());
    Some(Bytes::from(out))
}

/// Takes a number apart; none if the bytes are not one.
pub fn parts(bytes: &[u8]) -> Option<Parts> {
    let (order, scale) = bytes.split_last_chunk::<SCALE_BYTES>()?;
    let (&class, rest) = order.split_first()?;
    let scale = u16::from_be_bytes(*scale);
    Some(match class {
        0 if rest.is_empty() => Parts::NegativeInfinity,
        2 if rest.is_empty() => Parts::Finite { negative: false, pairs: Vec::new(), exponent: 0, scale },
        4 if rest.is_empty() => Parts::Infinity,
        5 if rest.is_empty() => Parts::NaN,
        1 | 3 => {
            let flip = if class == 1 { 0xFF } else { 0 };
            let (biased, rest) = rest.split_first_chunk::<2>()?;
            let (&end, pairs) = rest.split_last()?;
            let exponent = i32::from(u16::from_be_bytes(biased.map(|b| b ^ flip))) - EXPONENT_BIAS;
            let pairs: Option<Vec<u8>> =
                pairs.iter().map(|p| (p ^ flip).checked_sub(1).filter(|p| *p < 100)).collect();
            let pairs = pairs.filter(|p| {
                let inner = |p: Option<&u8>| p.is_some_and(|p| *p != 0);
                end == flip && inner(p.first()) && inner(p.last())
            })?;
            Parts::Finite { negative: class == 1, pairs, exponent, scale }
        }
        _ => return None,
    })
}

/// The bytes without the scale: they order as the numbers do, and equal numbers have equal ones.
pub fn order(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().saturating_sub(SCALE_BYTES)]
}

/// How many bytes at the front of `input` are a number's [`order`]; none if there is none.
pub fn order_len(input: &[u8]) -> Option<usize> {
    match input.first()? {
        0 | 2 | 4 | 5 => Some(1),
        class @ (1 | 3) => {
            let end = if *class == 1 { 0xFF } else { 0 };
            Some(3 + input.get(3..)?.iter().position(|b| *b == end)? + 1)
        }
        _ => None,
    }
}

/// A number from its [`order`], shown with as few digits as it has.
pub fn from_order(order: &[u8]) -> Option<Bytes> {
    let mut bytes = order.to_vec();
    bytes.extend_from_slice(&[0; SCALE_BYTES]);
    match parts(&bytes)? {
        Parts::Finite { negative, pairs, exponent, .. } => {
            let behind = (pairs.len() as i32 - exponent).max(0) * 2;
            let odd = behind > 0 && pairs.last().is_some_and(|p| p % 10 == 0);
            let scale = u16::try_from(behind - i32::from(odd)).ok()?;
            encode(&Parts::Finite { negative, pairs, exponent, scale })
        }
        _ => Some(Bytes::from(bytes)),
    }
}

/// The same number, shown with so many digits behind the point; those that it has are shown anyway.
pub fn with_scale(number: Bytes, scale: u16) -> Bytes {
    match parts(&number) {
        Some(Parts::Finite { negative, pairs, exponent, scale: least }) => {
            let wider = Parts::Finite { negative, pairs, exponent, scale: scale.max(least) };
            encode(&wider).unwrap_or(number)
        }
        _ => number,
    }
}

//! A certificate's subject as text, the identity of scheme x509.
//!
//! Called by: `session`. Calls: nothing.
//! Invariant: any bytes give a text or nothing; the text is RFC 2253's, as Java's and so ZooKeeper's.
//! Does not know: whether the certificate is good, which rustls has checked before.

use std::fmt::Write;

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// Texts that are UTF-8 or a part of it: UTF8String, PrintableString, IA5String, NumericString.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x16, 0x12];

/// The subject: the last part first, as in `CN=client,O=people`; `None` for what is no certificate, and for one without
/// a subject, which names nobody.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let mut outer = take_all(certificate, SEQUENCE)?;
    let (mut body, _) = take_from(&mut outer, SEQUENCE)?;
    if body.first() == Some(&VERSION) {
        take_from(&mut body, VERSION)?;
    }
    // Serial number, signature's algorithm, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        take_from(&mut body, tag)?;
    }
    let (mut names, _) = take_from(&mut body, SEQUENCE)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (mut attributes, _) = take_from(&mut names, SET)?;
        let mut texts = Vec::new();
        while !attributes.is_empty() {
            let (mut attribute, _) = take_from(&mut attributes, SEQUENCE)?;
            let (id, _) = take_from(&mut attribute, OBJECT_ID)?;
            texts.push(attribute_text(id, attribute)?);
        }
        if texts.is_empty() {
            return None;
        }
        parts.push(texts.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// `CN=value`; with a name that is not known, or a value that is no text, by numbers.
fn attribute_text(id: &[u8], value: &[u8]) -> Option<String> {
    let tag = *value.first()?;
    let content = take_all(value, tag)?;
    let name = match id {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "STREET",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        _ => return Some(format!("{}=#{}", dotted(id)?, hex(value))),
    };
    let text = TEXTS.contains(&tag).then(|| std::str::from_utf8(content).ok()).flatten();
    Some(match text {
        Some(text) => format!("{name}={}", escaped(text)),
        None => format!("{name}=#{}", hex(value)),
    })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let last = text.chars().count().saturating_sub(1);
    for (at, character) in text.chars().enumerate() {
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        let at_end = (character == ' ' && (at == 0 || at == last)) || (character == '#' && at == 0);
        if special || at_end {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn dotted(id: &[u8]) -> Option<String> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number: u64 = 0;
    for byte in id {
        number = number.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    Some(texts.join("."))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The element at the beginning of `input`, which must have this tag, and what follows it.
fn take(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        // Longer than any certificate.
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The element that `input` is, with nothing behind it.
fn take_all(input: &[u8], tag: u8) -> Option<&[u8]> {
    let (content, rest) = take(input, tag)?;
    rest.is_empty().then_some(content)
}

/// The same as [`take`], and `input` goes on behind it.
fn take_from<'a>(input: &mut &'a [u8], tag: u8) -> Option<(&'a [u8], &'a [u8])> {
    let found = take(input, tag)?;
    *input = found.1;
    Some(found)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn made(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (name, value) in parts {
            params.distinguished_name.push(name.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn subject_is_written_as_java_does() {
        let plain = made(&[
            (DnType::CountryName, "NL"),
            (DnType::OrganizationName, "Acme, Inc."),
            (DnType::OrganizationalUnitName, " a+b "),
            (DnType::CommonName, "#bob \u{e9}"),
        ]);
        let expected = "CN=\\#bob \u{e9},OU=\\ a\\+b\\ ,O=Acme\\, Inc.,C=NL";
        assert_eq!(subject(&plain).as_deref(), Some(expected));
        assert_eq!(subject(&made(&[])), None, "nobody is named");
        let other = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        let text = subject(&made(&[(other, "b@c")])).unwrap();
        assert_eq!(text, "1.2.840.113549.1.9.1=#0c03624063");
    }

    #[test]
    fn nothing_may_stand_behind_a_value() {
        let name = [0x55, 0x04, 0x03];
        let value = [0x0c, 3, b'b', b'o', b'b'];
        assert_eq!(attribute_text(&name, &value).as_deref(), Some("CN=bob"));
        let more = [&value[..], &[0]].concat();
        assert_eq!(attribute_text(&name, &more), None);
        assert_eq!(attribute_text(&[0x2a, 3], &value).as_deref(), Some("1.2.3=#0c03626f62"));
        assert_eq!(attribute_text(&[0x2a, 3], &more), None);
        let certificate = made(&[(DnType::CommonName, "bob")]);
        assert_eq!(subject(&[&certificate[..], &[0]].concat()), None);
    }

    #[test]
    fn any_bytes_give_a_text_or_nothing() {
        let whole = made(&[(DnType::CommonName, "bob"), (DnType::OrganizationName, "people")]);
        for length in 0..whole.len() {
            assert_eq!(subject(&whole[..length]), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let _ = subject(&changed);
            }
        }
        assert_eq!(subject(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}

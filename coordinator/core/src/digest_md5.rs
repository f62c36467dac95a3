//! The server's half of SASL DIGEST-MD5 (RFC 2831), as ZooKeeper's old clients speak it.
//!
//! Called by `server::sasl`. Calls: MD5. Invariant: a response is right only for the nonce of its
//! connection; what it is compared with cannot be found out by how long that takes. It does not know
//! connections or what an identity may do.
//!
//! ```text
//! client: nothing                      server: realm, nonce, qop, charset, algorithm
//! client: user, cnonce, response, ...  server: rspauth, which shows that it knows the password too
//! ```
//!
//! MD5 is broken as a hash; as a proof of a password over a line that others read, this mechanism is
//! weak, and historic by RFC 6331. It is here for clients that have nothing else.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

/// What ZooKeeper's clients take for the server's name.
const REALM: &str = "zk-sasl-md5";
/// Service and server that a client has to mean.
const DIGEST_URI: &str = "zookeeper/zk-sasl-md5";
/// Longest response, by the RFC.
const RESPONSE_BYTES_MAX: usize = 4096;

/// A user's secret: MD5 of name, realm and password, from which the password cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The secret of this user.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        let parts = [latin(user), b":".to_vec(), REALM.into(), b":".to_vec(), latin(password)];
        Self(md5(&parts.concat()))
    }
}

/// Why a response proves nothing. Clients are told no more than that they failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is not a list of directives, or too long.
    #[error("the response cannot be read")]
    Malformed,
    /// It answers another challenge, or asks for what is not offered.
    #[error("the response's {0} is not the one that was offered")]
    Mismatch(&'static str),
    /// No such user, or another password.
    #[error("wrong user or password")]
    Credentials,
}

/// What the client gets first.
#[must_use]
pub fn challenge(nonce: &str) -> String {
    format!("realm=\"{REALM}\",nonce=\"{nonce}\",qop=\"auth\",charset=utf-8,algorithm=md5-sess")
}

/// Who answered the challenge with `nonce`, and what shows that this side knows the password too.
///
/// # Errors
/// Any [`Failure`]; the exchange is over then.
pub fn verify(
    users: &BTreeMap<String, Secret>,
    nonce: &str,
    response: &[u8],
) -> Result<(String, String), Failure> {
    let directives = Directives::parse(response)?;
    directives.expect("nonce", nonce)?;
    directives.expect("realm", REALM)?;
    directives.expect("nc", "00000001")?;
    let qop = directives.get("qop").unwrap_or("auth");
    if qop != "auth" {
        return Err(Failure::Mismatch("qop"));
    }
    let uri = directives.required("digest-uri")?;
    if !uri.eq_ignore_ascii_case(DIGEST_URI) {
        return Err(Failure::Mismatch("digest-uri"));
    }
    let user = directives.required("username")?;
    let authzid = directives.get("authzid").filter(|authzid| !authzid.is_empty());
    if authzid.is_some_and(|authzid| authzid != user) {
        return Err(Failure::Mismatch("authzid"));
    }
    let secret = users.get(user);
    // A user that does not exist takes as long as one with another password.
    let Secret(key) = secret.copied().unwrap_or(Secret([0; 16]));
    let mut session = key.to_vec();
    for part in [nonce, directives.required("cnonce")?].into_iter().chain(authzid) {
        session.push(b':');
        session.extend(part.as_bytes());
    }
    let session = hex(&md5(&session));
    let sum = |method: &str| {
        let about = hex(&md5(format!("{method}:{uri}").as_bytes()));
        let cnonce = directives.get("cnonce").unwrap_or_default();
        hex(&md5(format!("{session}:{nonce}:00000001:{cnonce}:{qop}:{about}").as_bytes()))
    };
    let given = directives.required("response")?;
    if is_equal(sum("AUTHENTICATE").as_bytes(), given.as_bytes()) && secret.is_some() {
        Ok((user.to_owned(), format!("rspauth={}", sum(""))))
    } else {
        Err(Failure::Credentials)
    }
}

/// A response's parts by name.
struct Directives(BTreeMap<String, String>);

impl Directives {
    fn parse(response: &[u8]) -> Result<Self, Failure> {
        if response.len() > RESPONSE_BYTES_MAX {
            return Err(Failure::Malformed);
        }
        let text = std::str::from_utf8(response).map_err(|_| Failure::Malformed)?;
        let mut directives = BTreeMap::new();
        let mut rest = text.trim_start_matches([' ', ',']);
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or(Failure::Malformed)?;
            let (value, after) = value(after)?;
            if directives.insert(name.trim().to_ascii_lowercase(), value).is_some() {
                return Err(Failure::Malformed);
            }
            rest = after.trim_start_matches([' ', ',']);
        }
        Ok(Self(directives))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or(Failure::Malformed)
    }

    fn expect(&self, name: &'static str, value: &str) -> Result<(), Failure> {
        if self.required(name)? == value { Ok(()) } else { Err(Failure::Mismatch(name)) }
    }
}

/// The value at the front, quoted or not, and what follows it.
fn value(text: &str) -> Result<(String, &str), Failure> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.trim().to_owned(), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next().ok_or(Failure::Malformed)? {
            '"' => return Ok((value, letters.as_str())),
            '\\' => value.push(letters.next().ok_or(Failure::Malformed)?),
            letter => value.push(letter),
        }
    }
}

/// As the RFC has it hashed: in ISO 8859-1 where that is possible, else in UTF-8.
fn latin(text: &str) -> Vec<u8> {
    let latin: Option<Vec<u8>> =
        text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
    latin.unwrap_or_else(|| text.as_bytes().to_vec())
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Looks at every byte, whatever the first ones say.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}

/// What a client that knows the password says, by the RFC's formula written out once more.
#[cfg(test)]
pub(crate) fn prove((user, password): (&str, &str), nonce: &str) -> String {
    let cnonce = "OA6MHXh6VqTrRd";
    let key = md5(format!("{user}:{REALM}:{password}").as_bytes());
    let a1 = [&key[..], format!(":{nonce}:{cnonce}").as_bytes()].concat();
    let a2 = hex(&md5(format!("AUTHENTICATE:{DIGEST_URI}").as_bytes()));
    let sum = md5(format!("{}:{nonce}:00000001:{cnonce}:auth:{a2}", hex(&md5(&a1))).as_bytes());
    format!(
        "charset=utf-8,username=\"{user}\",realm=\"{REALM}\",nonce=\"{nonce}\",nc=00000001,cnonce=\"{cnonce}\",\
         digest-uri=\"{DIGEST_URI}\",maxbuf=65536,response={},qop=auth",
        hex(&sum)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "OA6MG9tEQGm2hh";

    fn users() -> BTreeMap<String, Secret> {
        BTreeMap::from([("chris".to_owned(), Secret::new("chris", "secret"))])
    }

    fn response(user: &str, password: &str, change: (&str, &str)) -> String {
        prove((user, password), NONCE).replace(change.0, change.1)
    }

    fn outcome(response: &str) -> Result<String, Failure> {
        verify(&users(), NONCE, response.as_bytes()).map(|(user, _)| user)
    }

    #[test]
    fn right_password_is_accepted_and_others_are_not() {
        let unchanged = ("", "");
        assert_eq!(outcome(&response("chris", "secret", unchanged)), Ok("chris".to_owned()));
        assert_eq!(outcome(&response("chris", "Secret", unchanged)), Err(Failure::Credentials));
        assert_eq!(outcome(&response("nobody", "secret", unchanged)), Err(Failure::Credentials));
        let none = BTreeMap::new();
        let response = response("chris", "secret", unchanged);
        assert_eq!(verify(&none, NONCE, response.as_bytes()), Err(Failure::Credentials));
    }

    /// The exchange of RFC 2831, section 4, with its service in the place of ours.
    #[test]
    fn sums_are_the_rfcs() {
        let key = md5(b"chris:elwood.innosoft.com:secret");
        let a1 = [&key[..], b":OA6MG9tEQGm2hh:OA6MHXh6VqTrRk"].concat();
        let sum = |method: &str| {
            let a2 = hex(&md5(format!("{method}:imap/elwood.innosoft.com").as_bytes()));
            let a1 = hex(&md5(&a1));
            hex(&md5(format!("{a1}:OA6MG9tEQGm2hh:00000001:OA6MHXh6VqTrRk:auth:{a2}").as_bytes()))
        };
        assert_eq!(sum("AUTHENTICATE"), "d388dad90d4bbd760a152321f2143af7");
        assert_eq!(sum(""), "ea40f60335c427b5527b84dbabcdfffd");
    }

    #[test]
    fn response_to_anything_else_is_refused() {
        let check = |change: (&str, &str), expected| {
            assert_eq!(outcome(&response("chris", "secret", change)), Err(expected), "{change:?}");
        };
        check((NONCE, "another"), Failure::Mismatch("nonce"));
        check(("realm=\"zk-sasl-md5\"", "realm=\"other\""), Failure::Mismatch("realm"));
        check(("nc=00000001", "nc=00000002"), Failure::Mismatch("nc"));
        check(("qop=auth", "qop=auth-conf"), Failure::Mismatch("qop"));
        check(("zookeeper/", "imap/"), Failure::Mismatch("digest-uri"));
        check(("maxbuf=65536", "authzid=\"root\""), Failure::Mismatch("authzid"));
        check(("nc=00000001,", ""), Failure::Malformed);
        check(("maxbuf=65536", "username=\"chris\""), Failure::Malformed);
        check(("qop=auth", "qop"), Failure::Malformed);
    }

    #[test]
    fn no_bytes_panic() {
        let right = response("chris", "secret", ("", ""));
        // Without a word on qop it is auth: nothing behind the sum is needed.
        let needed = right.find(",qop").expect("there is one");
        for end in 0..right.len() {
            assert!(outcome(&right[..end]).is_err() || end >= needed, "{end}");
            let mut other = right.clone().into_bytes();
            other[end] = other[end].wrapping_add(1);
            let _ = verify(&users(), NONCE, &other);
            other[end] = 0xff;
            assert_eq!(verify(&users(), NONCE, &other), Err(Failure::Malformed));
        }
        let long = format!("username=\"{}\"", "x".repeat(RESPONSE_BYTES_MAX));
        assert_eq!(outcome(&long), Err(Failure::Malformed));
        assert_eq!(outcome("a=\"\\"), Err(Failure::Malformed));
    }

    #[test]
    fn quotes_and_old_letters_are_read() {
        assert_eq!(value("\"a \\\"b\\\\\",rest"), Ok(("a \"b\\".to_owned(), ",rest")));
        assert_eq!(latin("Jürgen"), b"J\xfcrgen");
        assert_eq!(latin("Jürgen €"), "Jürgen €".as_bytes());
    }
}

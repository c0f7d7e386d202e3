//! SCRAM-SHA-256 (RFC 5802, RFC 7677): a password is proven without being sent.
//!
//! A password says what its owner may do, whoever they say they are, so the user name in the exchange is not looked
//! at and one salt serves all passwords. No channel binding: it hashes the server's certificate by the hash of its
//! signature, and an Ed25519 signature names none; a libpq that is offered it breaks off.

use crate::auth::Role;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The mechanism's name on the wire.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// How many rounds a guess costs; PostgreSQL's number.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Why an exchange came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// A message is not what the protocol says.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The proof fits no password.
    #[error("the token is not valid here")]
    Wrong,
    /// The operating system gives no random bytes.
    #[error("there is no randomness")]
    NoRandomness,
}

/// What is kept of a password.
#[derive(Clone)]
struct Verifier {
    role: Role,
    stored_key: [u8; 32],
    server_key: hmac::Key,
}

/// What is kept of all passwords.
#[derive(Clone)]
pub(crate) struct Passwords {
    salt: [u8; 16],
    known: Vec<Verifier>,
}

impl Passwords {
    /// Of these passwords, under a fresh salt.
    pub fn new<'a>(all: impl Iterator<Item = (Role, &'a str)>) -> Result<Passwords, ScramError> {
        let salt = random::<16>()?;
        let known = all
            .map(|(role, password)| {
                // Clients send what this makes of it; what it refuses they send as it is.
                let prepared = stringprep::saslprep(password).unwrap_or(password.into());
                let mut salted = [0; 32];
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, prepared.as_bytes(), &mut salted);
                let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
                let server_key = hmac::sign(&salted, b"Server Key");
                Verifier {
                    role,
                    stored_key: sha256(hmac::sign(&salted, b"Client Key").as_ref()),
                    server_key: hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref()),
                }
            })
            .collect();
        Ok(Passwords { salt, known })
    }

    /// Takes the client's first message: the exchange, and what to answer.
    pub fn begin(&self, first: &[u8]) -> Result<(Exchange<'_>, String), ScramError> {
        let nonce = BASE64.encode(random::<18>()?);
        self.begin_with(first, &nonce)
    }

    fn begin_with(&self, first: &[u8], nonce: &str) -> Result<(Exchange<'_>, String), ScramError> {
        let first = text(first)?;
        // "n": the client cannot bind channels. "y": it can, and saw that we do not offer to.
        let header = ["n,,", "y,,"].into_iter().find(|header| first.starts_with(header));
        let header =
            header.ok_or(ScramError::Malformed("channel binding or another identity is asked for"))?;
        let bare = &first[header.len()..];
        let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r="));
        let client_nonce = client_nonce.filter(|nonce| !nonce.is_empty());
        let client_nonce = client_nonce.ok_or(ScramError::Malformed("there is no nonce"))?;
        if bare.starts_with("m=") {
            return Err(ScramError::Malformed("an extension is asked for"));
        }
        let nonce = format!("{client_nonce}{nonce}");
        let answer = format!("r={nonce},s={},i={ROUNDS}", BASE64.encode(self.salt));
        let heard = format!("{bare},{answer},");
        Ok((Exchange { passwords: self, header, nonce, heard }, answer))
    }
}

/// An exchange after its first answer.
pub(crate) struct Exchange<'a> {
    passwords: &'a Passwords,
    header: &'static str,
    nonce: String,
    heard: String,
}

impl Exchange<'_> {
    /// Takes the client's last message: what it may do, and the answer that proves the server too.
    pub fn finish(self, last: &[u8]) -> Result<(Role, String), ScramError> {
        let last = text(last)?;
        let (signed, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed("there is no proof"))?;
        let proof = BASE64.decode(proof).ok().and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(ScramError::Malformed("the proof has the wrong length"))?;
        let expected = format!("c={},r={}", BASE64.encode(self.header), self.nonce);
        if signed != expected {
            return Err(ScramError::Malformed("the nonce or the channel binding changed"));
        }
        let heard = format!("{}{signed}", self.heard);
        let mut found = None;
        // All are compared whichever fits, each in full.
        for known in &self.passwords.known {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &known.stored_key);
            let signature = hmac::sign(&key, heard.as_bytes());
            let mut client_key = proof;
            client_key.iter_mut().zip(signature.as_ref()).for_each(|(a, b)| *a ^= b);
            let differ =
                sha256(&client_key).iter().zip(known.stored_key).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(differ) == 0 && found.is_none() {
                found = Some(known);
            }
        }
        let known = found.ok_or(ScramError::Wrong)?;
        let signature = hmac::sign(&known.server_key, heard.as_bytes());
        Ok((known.role, format!("v={}", BASE64.encode(signature))))
    }
}

fn text(bytes: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn random<const N: usize>() -> Result<[u8; N], ScramError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ScramError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn passwords() -> Passwords {
        Passwords::new([(Role::Admin, "open sesame"), (Role::ReadOnly, "gl\u{e4}sern")].into_iter()).unwrap()
    }

    fn log_in(passwords: &Passwords, password: &str, binding: ChannelBinding) -> Result<Role, ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let (exchange, answer) = passwords.begin(client.message())?;
        client.update(answer.as_bytes()).unwrap();
        let (role, answer) = exchange.finish(client.message())?;
        client.finish(answer.as_bytes()).unwrap();
        Ok(role)
    }

    #[test]
    fn a_password_opens_its_role() {
        let passwords = passwords();
        assert_eq!(log_in(&passwords, "open sesame", ChannelBinding::unsupported()), Ok(Role::Admin));
        assert_eq!(log_in(&passwords, "gläsern", ChannelBinding::unrequested()), Ok(Role::ReadOnly));
        assert_eq!(log_in(&passwords, "open", ChannelBinding::unsupported()), Err(ScramError::Wrong));
        let bound = ChannelBinding::tls_server_end_point(vec![1]);
        assert!(matches!(log_in(&passwords, "open sesame", bound), Err(ScramError::Malformed(_))));
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let mut passwords = passwords();
        passwords.salt = salt;
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, b"pencil", &mut salted);
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        passwords.known[0].stored_key = sha256(hmac::sign(&salted, b"Client Key").as_ref());
        let server_key = hmac::sign(&salted, b"Server Key");
        passwords.known[0].server_key = hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref());
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (exchange, answer) = passwords.begin_with(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", nonce).unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (role, answer) = exchange.finish(last.as_bytes()).unwrap();
        assert_eq!((role, answer.as_str()), (Role::Admin, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn nonsense_is_refused() {
        let passwords = passwords();
        for first in
            ["", "n,,", "n,,n=a", "n,,n=a,r=", "p=tls-unique,,n=a,r=b", "n,a=other,n=a,r=b", "n,,m=x,r=b"]
        {
            assert!(matches!(passwords.begin(first.as_bytes()), Err(ScramError::Malformed(_))), "{first}");
        }
        let begin = || passwords.begin_with(b"n,,n=a,r=b", "c").unwrap().0;
        let proof = BASE64.encode([0; 32]);
        for last in [
            "",
            "c=biws,r=bc",
            "c=biws,r=b,p=AA==",
            &format!("c=biws,r=b,p={proof}"),
            &format!("c=eSws,r=bc,p={proof}"),
        ] {
            assert!(matches!(begin().finish(last.as_bytes()), Err(ScramError::Malformed(_))), "{last}");
        }
        assert_eq!(
            begin().finish(format!("c=biws,r=bc,p={proof}").as_bytes()).err(),
            Some(ScramError::Wrong)
        );
    }
}

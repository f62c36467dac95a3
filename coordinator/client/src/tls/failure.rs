//! Why no encrypted connection came to be, and what to do about it.
//!
//! Called by: `connection`, people. Calls: nothing.
//! Invariant: each has its advice.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as Broken, InvalidMessage};
use thiserror::Error;

use super::Tls;

/// Why a server is not spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsFailure {
    /// Its certificate is another authority's.
    #[error("its certificate is signed by nobody who is trusted here")]
    UnknownAuthority,
    /// Its certificate is for other hosts.
    #[error("its certificate is not for the host {0:?}")]
    OtherHost(String),
    /// Its certificate is too old or too new.
    #[error("its certificate's days are over or have not begun")]
    OtherDays,
    /// It speaks without encryption.
    #[error("it does not encrypt")]
    NotEncrypted,
    /// It went without a word of TLS; the next time it may not.
    #[error(
        "it hung up during the handshake: it has too many clients, stops, or does not encrypt; its log says which"
    )]
    HungUp,
    /// It wants to know who this is.
    #[error("it wants a certificate to be shown")]
    WantsCertificate,
    /// It does not trust what it was shown.
    #[error("it refused the certificate that was shown: {0}")]
    Refused(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl TlsFailure {
    /// What an error of a socket to `host` says of this; `None` where it is about something else.
    pub(crate) fn of(error: &io::Error, host: &str, own: &Tls) -> Option<Self> {
        Self::read(error, host, own.has_certificate)
    }

    fn read(error: &io::Error, host: &str, shows_one: bool) -> Option<Self> {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return Some(Self::HungUp);
        }
        let broken = error.get_ref()?.downcast_ref::<Broken>()?;
        Some(match broken {
            // A bad signature is what another authority of the same name leaves: all that `tidegate certs` makes have one name.
            Broken::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownAuthority,
            Broken::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::OtherHost(host.to_owned()),
            Broken::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::OtherDays,
            Broken::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotEncrypted,
            Broken::AlertReceived(alert) if !shows_one && wants_one(alert) => {
                Self::WantsCertificate
            }
            Broken::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied),
            ) => Self::Refused(told(*alert)),
            Broken::AlertReceived(AlertDescription::CertificateRequired) => {
                Self::Refused("none of its kind of key was shown (CertificateRequired)".to_owned())
            }
            Broken::AlertReceived(alert) => {
                Self::Other(format!("it ended the handshake: {alert:?}"))
            }
            other => Self::Other(other.to_string()),
        })
    }

    /// Whether it stays as it is until files or settings are changed.
    pub(crate) fn is_lasting(&self) -> bool {
        *self != Self::HungUp
    }

    /// What to do next, for people.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "name the ca.pem of the authority that signed the coordinators' certificates (--tls-ca; a broker's \
                 zookeeper.ssl.truststore.location)"
            }
            Self::OtherHost(_) => {
                "call the coordinator by a name or address that its certificate has, or have one signed for this one \
                 (`tidegate certs sign NAME --host HOST`)"
            }
            Self::OtherDays => {
                "have the coordinator's certificate signed anew (`tidegate certs sign`), or set this machine's clock"
            }
            Self::NotEncrypted => {
                "is this a coordinator's clientPort, and is ssl.keyStore.location in its settings?"
            }
            Self::HungUp => {
                "does it encrypt (ssl.keyStore.location in its settings)? If not, leave --tls-ca out (TIDEGATE_TLS_CA; a broker's \
                 zookeeper.ssl.client.enable). Has it room for one more client (maxCnxns, maxClientCnxns)?"
            }
            Self::WantsCertificate => {
                "show it one that its ssl.trustStore.location trusts: `tidegate certs sign NAME --client` makes it, --tls-cert \
                 (a broker's zookeeper.ssl.keystore.location) names it"
            }
            Self::Refused(_) => {
                "show a certificate whose days are not over, signed by an authority that the coordinator's \
                 ssl.trustStore.location names (--tls-cert; a broker's zookeeper.ssl.keystore.location)"
            }
            Self::Other(_) => {
                "do both sides take TLS 1.2 or 1.3, and a cipher of the other? The coordinator's log has its side of it"
            }
        }
    }
}

/// Whether this is what servers say to who shows none: before TLS 1.3 there is no word for it.
const fn wants_one(alert: &AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::HandshakeFailure
            | AlertDescription::NoCertificate
    )
}

/// In words, and in those of the protocol, which the server's log may have.
fn told(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "another authority has signed it"
        }
        AlertDescription::CertificateExpired => "its days are over",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnsupportedCertificate => "it is of a kind that is not taken",
        AlertDescription::AccessDenied => "it may not come in",
        _ => "it is not good for a client",
    };
    format!("{words} ({alert:?})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_told_by_what_can_be_done() {
        let check = |error: io::Error, expected: Option<TlsFailure>| {
            assert_eq!(TlsFailure::read(&error, "a", true), expected, "{error}");
        };
        let broken = |error: Broken| io::Error::new(io::ErrorKind::InvalidData, error);
        let certificate = |error| broken(Broken::InvalidCertificate(error));
        check(certificate(CertificateError::UnknownIssuer), Some(TlsFailure::UnknownAuthority));
        check(certificate(CertificateError::BadSignature), Some(TlsFailure::UnknownAuthority));
        let other_host = Some(TlsFailure::OtherHost("a".to_owned()));
        check(certificate(CertificateError::NotValidForName), other_host);
        check(certificate(CertificateError::Expired), Some(TlsFailure::OtherDays));
        let alert = |alert| broken(Broken::AlertReceived(alert));
        let refused = "another authority has signed it (UnknownCA)".to_owned();
        check(alert(AlertDescription::UnknownCA), Some(TlsFailure::Refused(refused)));
        let other = "it ended the handshake: HandshakeFailure".to_owned();
        check(alert(AlertDescription::HandshakeFailure), Some(TlsFailure::Other(other)));
        let plain = Broken::InvalidMessage(InvalidMessage::InvalidContentType);
        check(broken(plain), Some(TlsFailure::NotEncrypted));
        check(io::ErrorKind::UnexpectedEof.into(), Some(TlsFailure::HungUp));
        check(io::ErrorKind::ConnectionReset.into(), Some(TlsFailure::HungUp));
        check(io::ErrorKind::ConnectionRefused.into(), None);
    }

    #[test]
    fn who_shows_no_certificate_is_not_told_that_it_was_refused() {
        let read = |alert, shows_one| {
            let error = io::Error::new(io::ErrorKind::InvalidData, Broken::AlertReceived(alert));
            TlsFailure::read(&error, "a", shows_one)
        };
        for alert in [
            AlertDescription::CertificateRequired,
            AlertDescription::BadCertificate,
            AlertDescription::HandshakeFailure,
        ] {
            assert_eq!(read(alert, false), Some(TlsFailure::WantsCertificate), "{alert:?}");
            assert_ne!(read(alert, true), Some(TlsFailure::WantsCertificate), "{alert:?}");
        }
    }
}

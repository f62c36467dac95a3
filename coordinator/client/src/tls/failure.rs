//! Why no encrypted connection came to be, and what to do about it.
//!
//! Called by: `connection`, people. Calls: nothing.
//! Invariant: each has its advice.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as Broken, InvalidMessage};
use thiserror::Error;

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
    pub(crate) fn of(error: &io::Error, host: &str) -> Option<Self> {
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
            Broken::AlertReceived(AlertDescription::CertificateRequired) => Self::WantsCertificate,
            Broken::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied),
            ) => Self::Refused(format!("{alert:?}")),
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
                "is ssl.keyStore.location in its settings, and has it room for one more client (maxCnxns, maxClientCnxns)?"
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
                "do both sides take TLS 1.2 or 1.3? The coordinator's log has its side of it"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_told_by_what_can_be_done() {
        let check = |error: io::Error, expected: Option<TlsFailure>| {
            assert_eq!(TlsFailure::of(&error, "a"), expected, "{error}");
        };
        let broken = |error: Broken| io::Error::new(io::ErrorKind::InvalidData, error);
        let certificate = |error| broken(Broken::InvalidCertificate(error));
        check(certificate(CertificateError::UnknownIssuer), Some(TlsFailure::UnknownAuthority));
        check(certificate(CertificateError::BadSignature), Some(TlsFailure::UnknownAuthority));
        let other_host = Some(TlsFailure::OtherHost("a".to_owned()));
        check(certificate(CertificateError::NotValidForName), other_host);
        check(certificate(CertificateError::Expired), Some(TlsFailure::OtherDays));
        check(
            broken(Broken::AlertReceived(AlertDescription::CertificateRequired)),
            Some(TlsFailure::WantsCertificate),
        );
        check(
            broken(Broken::AlertReceived(AlertDescription::UnknownCA)),
            Some(TlsFailure::Refused("UnknownCA".to_owned())),
        );
        let plain = Broken::InvalidMessage(InvalidMessage::InvalidContentType);
        check(broken(plain), Some(TlsFailure::NotEncrypted));
        check(io::ErrorKind::UnexpectedEof.into(), Some(TlsFailure::HungUp));
        check(io::ErrorKind::ConnectionReset.into(), Some(TlsFailure::HungUp));
        check(io::ErrorKind::ConnectionRefused.into(), None);
    }
}

//! The settings that are about TLS.
//!
//! Called by: parsing. Calls: `tls`, which reads the files.
//! Invariant: whoever sets a file gets what it is for, or an error.
//! Does not know: sockets.

use std::path::PathBuf;

use super::SettingError;
use super::parse::Values;
use crate::net::Gate;
use crate::peers::PeerTls;
use crate::tls::{self, ClientAuth, Current, Noted, Renewal, TlsError};

const KEY_STORE: &str = "ssl.keyStore.location";
const TRUST_STORE: &str = "ssl.trustStore.location";
const CLIENT_AUTH: &str = "ssl.clientAuth";
const UNIFICATION: &str = "client.portUnification";
const CERT_RELOAD: &str = "client.certReload";
const QUORUM: &str = "sslQuorum";
const QUORUM_CERT_RELOAD: &str = "sslQuorumReloadCertFiles";
const QUORUM_KEY_STORE: &str = "ssl.quorum.keyStore.location";
const QUORUM_TRUST_STORE: &str = "ssl.quorum.trustStore.location";

/// Who gets in at the client port, and whether all of them have shown a certificate.
/// The files that they follow join `renewals`.
pub fn gate(values: &Values, renewals: &mut Vec<Renewal>) -> Result<(Gate, bool), SettingError> {
    let renews: bool = values.value(CERT_RELOAD, "true or false")?;
    let key_store: Option<PathBuf> = values.optional(KEY_STORE, "a file")?;
    let trust_store: Option<PathBuf> = values.optional(TRUST_STORE, "a file")?;
    let unified: Option<bool> = values.optional(UNIFICATION, "true or false")?;
    let auth: String = values.value(CLIENT_AUTH, "need, want or none")?;
    let auth = match &*auth {
        "need" => ClientAuth::Need,
        "want" => ClientAuth::Want,
        "none" => ClientAuth::None,
        other => {
            return Err(SettingError(format!(
                "{CLIENT_AUTH}: {other:?} is not need, want or none"
            )));
        }
    };
    let Some(key_store) = key_store else {
        if unified == Some(false) || trust_store.is_some() {
            return Err(SettingError(format!("{KEY_STORE} is needed for TLS")));
        }
        return Ok((Gate::default(), false));
    };
    if auth == ClientAuth::None && trust_store.is_some() {
        return Err(SettingError(format!(
            "{TRUST_STORE} is for certificates of clients, which {CLIENT_AUTH} = none does not ask for"
        )));
    }
    let noted = Noted::now(
        [Some(&key_store), trust_store.as_ref()].into_iter().flatten().cloned().collect(),
    );
    let read = move || {
        tls::serving(&key_store, trust_store.as_deref(), auth)
            .map_err(named(KEY_STORE, TRUST_STORE))
    };
    let serving = Current::from(read()?);
    if renews {
        let used = serving.clone();
        renewals.push(Renewal::new("clientPort", noted, move || {
            used.set(read().map_err(|error| error.to_string())?);
            Ok(())
        }));
    }
    // Who encrypts means it: clients that do not are let in where that was said.
    let gate = Gate { tls: Some(serving), only_tls: unified != Some(true) };
    let all_proved = gate.only_tls && auth == ClientAuth::Need;
    Ok((gate, all_proved))
}

/// How members encrypt their links, if they do.
/// The files that they follow join `renewals`.
pub fn peers(
    values: &Values,
    renewals: &mut Vec<Renewal>,
) -> Result<Option<PeerTls>, SettingError> {
    let renews: bool = values.value(QUORUM_CERT_RELOAD, "true or false")?;
    let key_store: Option<PathBuf> = values.optional(QUORUM_KEY_STORE, "a file")?;
    let trust_store: Option<PathBuf> = values.optional(QUORUM_TRUST_STORE, "a file")?;
    if !values.value::<bool>(QUORUM, "true or false")? {
        if key_store.is_some() || trust_store.is_some() {
            return Err(SettingError(format!(
                "{QUORUM_KEY_STORE} and {QUORUM_TRUST_STORE} need {QUORUM} = true; links between members would not be \
                 encrypted"
            )));
        }
        return Ok(None);
    }
    let (Some(key_store), Some(trust_store)) = (key_store, trust_store) else {
        return Err(SettingError(format!(
            "{QUORUM} needs {QUORUM_KEY_STORE} and {QUORUM_TRUST_STORE}"
        )));
    };
    let noted = Noted::now(vec![key_store.clone(), trust_store.clone()]);
    let read = move || {
        let failed = named(QUORUM_KEY_STORE, QUORUM_TRUST_STORE);
        let serving = tls::serving(&key_store, Some(&trust_store), ClientAuth::Need);
        let dialling = tls::dialling(&key_store, &trust_store);
        Ok::<_, SettingError>((serving.map_err(&failed)?, dialling.map_err(&failed)?))
    };
    let (serving, dialling) = read()?;
    let peer_tls = PeerTls { serving: serving.into(), dialling: dialling.into() };
    if renews {
        let used = peer_tls.clone();
        renewals.push(Renewal::new("server.N", noted, move || {
            let (serving, dialling) = read().map_err(|error| error.to_string())?;
            used.serving.set(serving);
            used.dialling.set(dialling);
            Ok(())
        }));
    }
    Ok(Some(peer_tls))
}

fn named(keys: &'static str, authorities: &'static str) -> impl Fn(TlsError) -> SettingError {
    move |error| {
        let name = match &error {
            TlsError::KeyStore(_) => keys,
            TlsError::TrustStore(_) | TlsError::Unchecked => authorities,
        };
        SettingError(format!("{name}: {error}"))
    }
}

//! Run-time settings: what clients set and ask at connect.

use crate::error::{SqlError, SqlState};
use crate::zone::Zone;
use std::collections::BTreeMap;
use std::time::Duration;

/// Name as PostgreSQL spells it, default, whether a client may change it.
const KNOWN: &[(&str, &str, bool)] = &[
    ("application_name", "", true),
    ("bytea_output", "hex", true),
    ("chronos.read_mode", "", true),
    ("client_encoding", "UTF8", true),
    ("client_min_messages", "notice", true),
    ("DateStyle", "ISO, MDY", true),
    ("default_transaction_isolation", "serializable", true),
    ("default_transaction_read_only", "off", true),
    ("default_transaction_deferrable", "off", true),
    ("extra_float_digits", "1", true),
    (IDLE_TIMEOUT, "1h", true),
    ("in_hot_standby", "off", false),
    ("integer_datetimes", "on", false),
    ("IntervalStyle", "postgres", true),
    ("is_superuser", "on", false),
    ("jit", "off", true),
    ("lc_collate", "C", false),
    ("lc_ctype", "C", false),
    ("lc_monetary", "C", true),
    ("lc_messages", "C", true),
    ("lc_numeric", "C", true),
    ("lock_timeout", "0", true),
    ("max_identifier_length", "63", false),
    ("row_security", "on", true),
    ("search_path", "\"$user\", public", true),
    ("server_encoding", "UTF8", false),
    ("server_version", crate::func::SERVER_VERSION, false),
    ("server_version_num", "150000", false),
    ("session_authorization", "", false),
    ("standard_conforming_strings", "on", true),
    (STATEMENT_TIMEOUT, "0", true),
    ("synchronous_commit", "on", true),
    ("TimeZone", "UTC", true),
    ("transaction_isolation", "serializable", false),
    ("transaction_read_only", "off", false),
    ("work_mem", "4MB", true),
];

/// Those that a client is told of when they change.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// A session's settings: what differs from the defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    changed: BTreeMap<String, String>,
    zone: Zone,
    /// What was told to the client so far.
    told: BTreeMap<String, String>,
    /// Nothing has changed since.
    all_told: bool,
}

pub(crate) fn unknown(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// What the setting of this name is called here too.
const IDLE_TIMEOUT: &str = "idle_in_transaction_session_timeout";
const STATEMENT_TIMEOUT: &str = "statement_timeout";
const ALIASES: &[(&str, &str)] = &[("idle_in_transaction_timeout", IDLE_TIMEOUT)];

/// The name as PostgreSQL spells it, its default, and whether it may be changed.
fn find(name: &str) -> Option<&'static (&'static str, &'static str, bool)> {
    let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
    let name = alias.map_or(name, |(_, known)| known);
    KNOWN.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name))
}

/// A duration as PostgreSQL reads settings of time: a number with a unit, or of milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "ms" => 1_000,
        "us" => 1,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let micros = number.parse::<u64>().ok()?.checked_mul(factor)?;
    // PostgreSQL keeps milliseconds in 31 bits.
    (micros <= i32::MAX as u64 * 1_000).then(|| Duration::from_micros(micros))
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        match find(name) {
            Some((known, default, _)) => Some(self.changed.get(*known).map_or(default, String::as_str)),
            // A name with a dot is a client's own.
            None => self.changed.get(&name.to_lowercase()).map(String::as_str),
        }
    }

    /// Changes a setting; none sets it back to its default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), SqlError> {
        self.all_told = false;
        let Some((known, default, may)) = find(name) else {
            if name.contains('.') {
                match value {
                    Some(value) => self.changed.insert(name.to_lowercase(), value.to_owned()),
                    None => self.changed.remove(&name.to_lowercase()),
                };
                return Ok(());
            }
            return Err(unknown(name));
        };
        let Some(value) = value else {
            self.changed.remove(*known);
            if *known == "TimeZone" {
                self.zone = Zone::default();
            }
            return Ok(());
        };
        if !may {
            return Err(SqlError::new(
                SqlState::CANT_CHANGE_SETTING,
                format!("parameter \"{known}\" cannot be changed"),
            ));
        }
        let invalid = || {
            SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("invalid value for parameter \"{known}\": \"{value}\""),
            )
        };
        let value = match *known {
            "client_encoding" => match value.to_ascii_uppercase().replace(['-', '_'], "").as_str() {
                "UTF8" | "UNICODE" | "SQLASCII" | "'UTF8'" => "UTF8".to_owned(),
                _ => return Err(invalid().hint("only UTF8 is supported")),
            },
            "DateStyle" => match value.to_ascii_uppercase().split(',').next().map(str::trim) {
                Some("ISO" | "DEFAULT") => "ISO, MDY".to_owned(),
                _ => return Err(invalid().hint("only ISO is supported")),
            },
            "IntervalStyle" if !value.eq_ignore_ascii_case("postgres") => {
                return Err(invalid().hint("only postgres is supported"));
            }
            IDLE_TIMEOUT | STATEMENT_TIMEOUT => {
                duration(value).ok_or_else(|| {
                    invalid().hint("a number of milliseconds, or one with ms, s, min, h or d")
                })?;
                value.to_owned()
            }
            "bytea_output" if !value.eq_ignore_ascii_case("hex") => {
                return Err(invalid().hint("only hex is supported"));
            }
            "standard_conforming_strings" => match boolean(value) {
                Some(true) => "on".to_owned(),
                _ => return Err(invalid().hint("only on is supported")),
            },
            "chronos.read_mode" => match value.to_ascii_lowercase().as_str() {
                mode @ ("linearizable" | "lease" | "local" | "") => mode.to_owned(),
                _ => return Err(invalid().hint("linearizable, lease or local")),
            },
            "TimeZone" => {
                self.zone = match value.to_ascii_lowercase().as_str() {
                    "default" | "local" => Zone::default(),
                    _ => Zone::parse(value, false).ok_or_else(invalid)?,
                };
                self.zone.name().to_owned()
            }
            "default_transaction_read_only" => {
                if boolean(value).ok_or_else(invalid)? { "on" } else { "off" }.to_owned()
            }
            _ => value.to_owned(),
        };
        if value == *default {
            self.changed.remove(*known);
        } else {
            self.changed.insert((*known).to_owned(), value);
        }
        Ok(())
    }

    /// How long a transaction may be open and idle; none is for ever.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.limit(IDLE_TIMEOUT)
    }

    /// How long a statement may run; none is for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.limit(STATEMENT_TIMEOUT)
    }

    fn limit(&self, name: &str) -> Option<Duration> {
        self.get(name).and_then(duration).filter(|limit| !limit.is_zero())
    }

    /// The zone that times are shown and read in.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn reset_all(&mut self) {
        (self.zone, self.all_told) = (Zone::default(), false);
        self.changed.retain(|name, _| name == "session_authorization");
    }

    pub fn all(&self) -> Vec<(String, String)> {
        KNOWN
            .iter()
            .map(|(name, _, _)| ((*name).to_owned(), self.get(name).unwrap_or_default().to_owned()))
            .collect()
    }

    pub fn name_of(name: &str) -> String {
        find(name).map_or_else(|| name.to_lowercase(), |(known, _, _)| (*known).to_lowercase())
    }

    pub fn authorize(&mut self, user: &str) {
        self.all_told = false;
        self.changed.insert("session_authorization".into(), user.into());
    }

    /// What the client has not been told yet.
    pub fn take_reports(&mut self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        if std::mem::replace(&mut self.all_told, true) {
            return out;
        }
        for name in REPORTED {
            let value = self.get(name).unwrap_or_default().to_owned();
            if self.told.get(*name) != Some(&value) {
                self.told.insert((*name).to_owned(), value.clone());
                out.push(((*name).to_owned(), value));
            }
        }
        out
    }
}

pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" => Some(true),
        "off" | "false" | "no" | "0" | "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_timeout_has_two_names_and_reads_units() {
        let mut settings = Settings::default();
        assert_eq!(settings.idle_in_transaction_timeout(), Some(Duration::from_secs(3_600)));
        for (value, millis) in [("1500", 1_500), ("1500 ms", 1_500), ("2s", 2_000), ("1min", 60_000)] {
            settings.set("idle_in_transaction_timeout", Some(value)).unwrap();
            assert_eq!(settings.idle_in_transaction_timeout(), Some(Duration::from_millis(millis)));
            assert_eq!(settings.get(IDLE_TIMEOUT), Some(value));
        }
        for wrong in ["", "s", "-1", "1.5s", "1 year", "99999999999"] {
            let refused = settings.set(IDLE_TIMEOUT, Some(wrong)).unwrap_err();
            assert_eq!(refused.code, SqlState::INVALID_PARAMETER, "{wrong}");
        }
        settings.set(IDLE_TIMEOUT, Some("0")).unwrap();
        assert_eq!(settings.idle_in_transaction_timeout(), None);
        assert_eq!(settings.statement_timeout(), None);
        settings.set("Statement_Timeout", Some("2s")).unwrap();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn clients_are_told_what_changed_and_that_once() {
        let mut settings = Settings::default();
        assert_eq!(settings.take_reports().len(), REPORTED.len());
        assert_eq!(settings.take_reports(), []);
        settings.set("TimeZone", Some("Europe/Rome")).unwrap();
        settings.set("work_mem", Some("1MB")).unwrap();
        assert_eq!(settings.take_reports(), [("TimeZone".to_owned(), "Europe/Rome".to_owned())]);
        settings.reset_all();
        assert_eq!(settings.take_reports(), [("TimeZone".to_owned(), "UTC".to_owned())]);
    }
}

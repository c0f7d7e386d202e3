//! `chronos config show`.

use super::failure::{Failure, Outcome};
use chronos_server::config::{self, Resolved, SETTINGS};
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Shows the configuration
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Prints what holds and where each value came from
    Show(Settings),
}

/// The flags that stand for settings, one for each in [`SETTINGS`] that is no secret: a command line is no place for
/// those, since every user of the machine can read it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    flags: BTreeMap<&'static str, String>,
    file: Option<PathBuf>,
}

impl Settings {
    /// Merges flags, environment and file.
    fn resolve(&self) -> Outcome<Resolved> {
        let file = match &self.file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| {
                    Failure::usage(format!("cannot read the configuration file {}: {error}", path.display()))
                })?;
                Some(config::File { path: path.clone(), text })
            }
        };
        Resolved::new(&self.flags, |name| std::env::var(name).ok(), file.as_ref())
            .map_err(|error| Failure::usage(error.to_string()))
    }
}

impl clap::Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("CHRONOS_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file of settings; flags and CHRONOS_* variables win over it");
        SETTINGS.iter().filter(|setting| !setting.secret).fold(command.arg(file), |command, setting| {
            let arg = Arg::new(setting.key).long(setting.key.replace('_', "-"));
            let default = match setting.default {
                "" => String::new(),
                _ if setting.switch => String::new(),
                default => format!(" [default: {default}]"),
            };
            let arg = arg.help(format!("{}{default}", capitalised(setting.help)));
            command.arg(match setting.switch {
                true => arg.action(ArgAction::SetTrue),
                false => arg.value_name(value_name(setting.key)),
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let mut settings = Settings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            let value = match setting.switch {
                true => matches.get_flag(setting.key).then(|| "true".to_owned()),
                false => matches.get_one::<String>(setting.key).cloned(),
            };
            if let Some(value) = value {
                self.flags.insert(setting.key, value);
            }
        }
        Ok(())
    }
}

fn value_name(key: &str) -> &'static str {
    match key.rsplit('_').next() {
        Some("address") => "HOST:PORT",
        Some("dir") => "DIR",
        Some("bytes") => "BYTES",
        Some("fsync") => "WHEN",
        Some("interval") => "LENGTH",
        _ => "N",
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Runs `chronos config show`.
pub fn show(settings: &Settings) -> Outcome {
    let resolved = settings.resolve()?;
    let mut table = super::print::table(&[]);
    table.set_header(["setting", "value", "from"]);
    for (key, value, origin) in resolved.show() {
        table.add_row([key.to_owned(), value, origin.to_string()]);
    }
    let mut out = std::io::stdout().lock();
    super::print::print_table(&mut out, &table)?;
    Ok(out.flush()?)
}

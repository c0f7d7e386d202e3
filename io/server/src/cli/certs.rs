//! `chronos certs`: an authority, certificates that it issues, and what they say.
//!
//! The authority's files, `ca.crt` and `ca.key`, are in one directory; each certificate goes into one of its own below
//! it, with all that its owner needs and nothing more: `ca.crt`, and `node.crt` with `node.key`. That directory is
//! copied to the machine it is for; the authority's key stays.

use super::failure::{Failure, Outcome};
use chronos_node::tls::{
    Authority, Certificate, Credentials, Files, Leaf, Role, TlsError, Validity, exposed, write,
};
use chronos_proto::time::Timestamp;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Makes certificates for a cluster's nodes, edges and clients, and shows them
#[derive(Debug, clap::Subcommand)]
pub enum CertsCommand {
    /// Makes an authority, and with it the number of a new cluster
    Init {
        /// Where its files go
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// How many days it is valid
        #[arg(long, default_value_t = 3650, value_parser = days())]
        days: u32,
        /// A new key for the cluster of the authority that is there; what it has issued stays valid
        #[arg(long)]
        renew: bool,
        /// Put a new authority in the place of one that is there: none of its certificates is trusted any more
        #[arg(long, conflicts_with = "renew")]
        force: bool,
    },
    /// Makes a certificate for a node
    Node(LeafArgs),
    /// Makes a certificate for an edge node
    Edge(LeafArgs),
    /// Makes a certificate that lets a client log in
    Client {
        #[command(flatten)]
        leaf: LeafArgs,
        /// It may only read
        #[arg(long)]
        readonly: bool,
    },
    /// Prints what certificates say, and what is wrong with them
    Show {
        /// Certificate files, or directories of them
        #[arg(value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        /// The directory to show if no path is given
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
    },
}

/// A certificate to be made.
#[derive(Debug, clap::Args)]
pub struct LeafArgs {
    /// For whom: a node's --id, an edge's or a client's name
    #[arg(long)]
    name: String,
    /// A host name or IP address that clients may check the certificate by; may be repeated
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Where the authority is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Where the files go [default: a directory of that name beside the authority]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many days it is valid, though no longer than its authority
    #[arg(long, default_value_t = 365, value_parser = days())]
    days: u32,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Runs the command.
pub fn run(command: CertsCommand, quiet: bool) -> Outcome {
    match command {
        CertsCommand::Init { dir, days, renew, force } => init(&dir, days, renew, force, quiet),
        CertsCommand::Node(leaf) => issue(Role::Node, &leaf, quiet),
        CertsCommand::Edge(leaf) => issue(Role::Edge, &leaf, quiet),
        CertsCommand::Client { leaf, readonly: false } => issue(Role::Client, &leaf, quiet),
        CertsCommand::Client { leaf, readonly: true } => issue(Role::Reader, &leaf, quiet),
        CertsCommand::Show { paths, dir } => show(if paths.is_empty() { vec![dir] } else { paths }),
    }
}

fn init(dir: &Path, days: u32, renew: bool, force: bool, quiet: bool) -> Outcome {
    let validity = Validity::days(days);
    let authority = match renew {
        true => Authority::load(dir)?.renew(validity)?,
        false => Authority::generate(validity)?,
    };
    authority.save(dir, renew || force).map_err(|error| {
        let is_there = matches!(error, TlsError::Exists { .. });
        let failure = Failure::from(error);
        match is_there {
            true => {
                failure.hint("--renew makes a new key for the same cluster, --force a cluster of its own")
            }
            false => failure,
        }
    })?;
    if !quiet {
        let mut out = std::io::stdout().lock();
        let (shown, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        writeln!(out, "{}: the authority of cluster {:032x}", shown.display(), authority.cluster().0)?;
        writeln!(out, "{}: its key, which stays here", key.display())?;
        if renew {
            writeln!(out, "copy ca.crt to every machine first; then make new certificates and copy those")?;
        }
    }
    Ok(())
}

fn issue(role: Role, args: &LeafArgs, quiet: bool) -> Outcome {
    let authority = Authority::load(&args.dir).map_err(|error| {
        let is_missing = matches!(error, TlsError::Missing { .. });
        let failure = Failure::from(error);
        if is_missing { failure.hint("`chronos certs init` makes an authority") } else { failure }
    })?;
    let (name, hosts, validity) = (args.name.clone(), args.hosts.clone(), Validity::days(args.days));
    let pair = authority.issue(&Leaf { role, name, hosts, validity })?;
    let out = args.out.clone().unwrap_or_else(|| args.dir.join(&args.name));
    let files = Files::in_dir(&out, role);
    // All or none: half a pair beside half of another is of no use.
    let there = [&files.certificate, &files.key].into_iter().find(|file| !args.force && file.exists());
    if let Some(file) = there {
        return Err(TlsError::Exists { file: file.clone() }.into());
    }
    std::fs::create_dir_all(&out)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", out.display())))?;
    // The authority's own directory has its certificates already.
    if out != args.dir {
        write(&files.ca, authority.bundle(), true)?;
    }
    write(&files.key, &pair.key, args.force)?;
    write(&files.certificate, &pair.certificate, args.force)?;
    if quiet {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}: {role} {}", files.certificate.display(), args.name)?;
    let dir = out.display();
    match role {
        Role::Node | Role::Edge => {
            writeln!(stdout, "start it with: chronos node --id {} --certs-dir {dir} …", args.name)?;
            if args.hosts.is_empty() {
                writeln!(stdout, "without --host, psql cannot check it by name (sslmode=verify-full)")?;
            }
        }
        _ => writeln!(stdout, "use it with: chronos client --certs-dir {dir} …")?,
    }
    Ok(())
}

fn show(paths: Vec<PathBuf>) -> Outcome {
    let mut out = std::io::stdout().lock();
    let (mut shown, mut wrong) = (0, 0);
    for path in &paths {
        let is_dir = path.is_dir();
        let files = if is_dir { certificates_in(path)? } else { vec![path.clone()] };
        for file in files {
            shown += 1;
            wrong += usize::from(!show_file(&mut out, &file)?);
        }
        if is_dir && shown == 0 {
            return Err(Failure::new(format!("there are no certificates in {}", path.display()))
                .hint("`chronos certs init` makes an authority"));
        }
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{wrong} of {shown} files are of no use as they are"))),
    }
}

/// The certificate files in a directory and in those right below it, in order.
fn certificates_in(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let list = |dir: &Path| -> Outcome<Vec<PathBuf>> {
        let failed = |error| Failure::new(format!("cannot read {}: {error}", dir.display()));
        let entries = std::fs::read_dir(dir).map_err(failed)?;
        let mut paths =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        paths.sort();
        Ok(paths)
    };
    let is_certificate = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "crt");
    let (dirs, files): (Vec<_>, Vec<_>) = list(dir)?.into_iter().partition(|path| path.is_dir());
    let mut found: Vec<PathBuf> = files.into_iter().filter(is_certificate).collect();
    for dir in dirs {
        found.extend(list(&dir)?.into_iter().filter(is_certificate));
    }
    Ok(found)
}

/// Prints what is in a file; says whether all is well with it.
fn show_file(out: &mut impl Write, file: &Path) -> Outcome<bool> {
    writeln!(out, "{}", file.display())?;
    let what = file.display().to_string();
    let now = Timestamp(super::when::now());
    let all = match Certificate::read_file(file) {
        Ok(all) => all,
        Err(error) => {
            writeln!(out, "  wrong        {error}")?;
            return Ok(false);
        }
    };
    for certificate in &all {
        let identity = &certificate.identity;
        let name = if identity.name.is_empty() { String::new() } else { format!(" {}", identity.name) };
        writeln!(out, "  subject      {}", super::print::plain(&certificate.subject))?;
        writeln!(out, "  role         {}{name}", identity.role)?;
        writeln!(out, "  cluster      {:032x}", identity.cluster.0)?;
        if !certificate.hosts.is_empty() {
            writeln!(out, "  hosts        {}", super::print::plain(&certificate.hosts.join(", ")))?;
        }
        writeln!(out, "  valid        {} until {}", certificate.not_before, certificate.not_after)?;
        writeln!(out, "  fingerprint  {}", certificate.fingerprint_text())?;
    }
    let problems = problems(file, &all, now, &what);
    for problem in &problems {
        writeln!(out, "  wrong        {problem}")?;
    }
    Ok(problems.is_empty())
}

/// What is wrong with a certificate by itself, or beside the key and the authority that are with it.
fn problems(file: &Path, all: &[Certificate], now: Timestamp, what: &str) -> Vec<String> {
    let dir = file.parent().unwrap_or(Path::new(""));
    let role = all[0].identity.role;
    let files = Files::in_dir(dir, role);
    let mut problems = Vec::new();
    if role == Role::Authority {
        problems.extend(all.iter().filter_map(|c| c.check_time(now, what).err()).map(|e| e.to_string()));
        problems.extend(exposed(&dir.join("ca.key")));
    } else if files.certificate == file {
        match Credentials::load(files, Role::LEAVES, None) {
            Ok(credentials) => problems.extend(credentials.current().warnings_at(now)),
            Err(error) => problems.push(error.to_string()),
        }
    } else {
        problems.extend(all[0].check_time(now, what).err().map(|error| error.to_string()));
    }
    problems
}

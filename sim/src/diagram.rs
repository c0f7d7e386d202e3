//! The space-time diagram of a run: nodes are columns, time runs down, messages are arrows. It shows a window that ends
//! where the run ended, as one SVG file that needs nothing else.
//!
//! Moments are spread by a logarithm of the time between them: what happens at once stays together, and a long wait
//! takes a finger's breadth. So heights order events and do not measure them; the times at the left do. At most
//! [`SHOWN_MAX`] happenings are drawn, the last ones.

use crate::chronicle::{Happening, What, node_name, role_name};
use crate::plan::{Act, End, Fault};
use crate::report::clock_face;
use chronos_engine::raft::Role;
use chronos_engine::step::Trace;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Happenings in a window that nobody asked for.
pub const SHOWN_USUALLY: usize = 160;
/// Happenings in any window.
pub const SHOWN_MAX: usize = 1_500;

const GUTTER: i64 = 190;
const COLUMN: i64 = 190;
const TOP: i64 = 150;
const STYLE: &str = "\
text{font:9px ui-monospace,Menlo,Consolas,monospace;fill:#222;paint-order:stroke;stroke:#fff;stroke-width:2px}\
.h{font-size:12px;font-weight:bold}.t{fill:#777}.m{fill:#456;font-size:8px}.b{fill:none;stroke-width:1}\
.msg{stroke:#4477aa}.beat{stroke:#c4ccd4}.client{stroke:#998833}.lost{stroke:#cc3311;stroke-dasharray:4 3}\
.x{stroke:#cc3311;stroke-width:2;fill:none}.bad{fill:#cc3311}.badline{stroke:#cc3311;stroke-width:2}\
.up{stroke:#333;stroke-width:1.5}.down{stroke:#bbb;stroke-width:1.5;stroke-dasharray:2 4}\
.leader{stroke:#228833;stroke-width:9;opacity:.35}.candidate{stroke:#ee9922;stroke-width:9;opacity:.45}\
.paused{stroke:#8855aa;stroke-width:9;opacity:.35}.cut{stroke:#cc3311;stroke-width:3;opacity:.5}\
.commit{fill:#4477aa}.timer{fill:#ddaa33;stroke:#775500}.disk{fill:#888}.fault{fill:#cc3311}.start{fill:#228833}\
.read{fill:#fff;stroke:#4477aa}";

/// What a diagram is made of.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// How many nodes there are.
    pub nodes: usize,
    /// The run's chronicle.
    pub chronicle: &'a [Happening],
    /// When the run ended, in simulated microseconds.
    pub end: u64,
    /// How much of it to show, in microseconds; [`SHOWN_USUALLY`] happenings if nobody says.
    pub window: Option<u64>,
    /// Nodes to point at.
    pub marked: &'a BTreeSet<usize>,
}

/// Draws it, with a few lines of text above.
pub fn draw(title: &[String], picture: &Picture<'_>) -> String {
    let mut canvas = Canvas::over(picture);
    canvas.lives();
    canvas.cuts();
    canvas.messages();
    canvas.marks();
    canvas.finish(title)
}

/// Whether a happening takes a place in the diagram.
fn is_drawn(what: &What) -> bool {
    match what {
        What::Logged { .. } | What::Durable { .. } | What::Wants { .. } | What::ReplyLost { .. } => false,
        What::Engine { trace, .. } => engine_mark(trace).is_some(),
        _ => true,
    }
}

/// The shape and the words of what the engine tells.
fn engine_mark(trace: &Trace) -> Option<(&'static str, String)> {
    match trace {
        Trace::Applied { what: "fire", index, .. } => Some(("timer", format!("timers fired, entry {index}"))),
        Trace::Released { .. } => Some(("timer", "timer released".to_owned())),
        Trace::Checkpoint { id, done: true } => Some(("disk", format!("checkpoint {} done", id.0))),
        Trace::SnapshotInstalled { index, .. } => Some(("disk", format!("snapshot at {index} installed"))),
        Trace::SnapshotSent { to, index, done, .. } => {
            let word = if *done { "sent" } else { "begun or given up" };
            Some(("disk", format!("snapshot at {index} for n{to} {word}")))
        }
        Trace::ClockStep { micros, adopted } => {
            let word = if *adopted { "adopted" } else { "ignored" };
            Some(("fault", format!("clock step {} ms {word}", micros / 1_000)))
        }
        _ => None,
    }
}

struct Canvas<'a> {
    picture: &'a Picture<'a>,
    shown: &'a [Happening],
    begin: u64,
    /// Moments of the window, and how far down each is.
    moments: Vec<u64>,
    heights: Vec<i64>,
    body: String,
    /// Where the last label of each column ends.
    labels: Vec<i64>,
}

impl<'a> Canvas<'a> {
    fn over(picture: &'a Picture<'a>) -> Canvas<'a> {
        let all = picture.chronicle;
        let begin_asked = picture.window.map(|window| picture.end.saturating_sub(window));
        let most = if begin_asked.is_some() { SHOWN_MAX } else { SHOWN_USUALLY };
        let mut first = all.len();
        let mut drawn = 0;
        while first > 0 && drawn < most && begin_asked.is_none_or(|begin| all[first - 1].at >= begin) {
            first -= 1;
            drawn += usize::from(is_drawn(&all[first].what));
        }
        let shown = &all[first..];
        let begin = shown.first().map_or(picture.end, |happening| happening.at);
        let mut moments = vec![begin, picture.end];
        for happening in shown.iter().filter(|happening| is_drawn(&happening.what)) {
            moments.push(happening.at);
        }
        for happening in all {
            if let What::Sent { arrives: Some(at), .. } | What::Asked { arrives: at, .. } = happening.what
                && (begin..=picture.end).contains(&at)
            {
                moments.push(at);
            }
        }
        moments.sort_unstable();
        moments.dedup();
        let mut heights = Vec::with_capacity(moments.len());
        let mut height = TOP + 20;
        for (place, at) in moments.iter().enumerate() {
            let gap = if place == 0 { 0 } else { at - moments[place - 1] };
            height += gap_height(gap);
            heights.push(height);
        }
        let labels = vec![0; picture.nodes + 1];
        Canvas { picture, shown, begin, moments, heights, body: String::new(), labels }
    }

    fn x(&self, node: usize) -> i64 {
        GUTTER + 60 + COLUMN * node as i64
    }

    /// The clients' column.
    fn clients(&self) -> i64 {
        self.x(self.picture.nodes)
    }

    fn y(&self, at: u64) -> i64 {
        let place = self.moments.partition_point(|moment| *moment < at).min(self.heights.len() - 1);
        self.heights[place]
    }

    fn bottom(&self) -> i64 {
        self.heights.last().copied().unwrap_or(TOP) + 6
    }

    fn line(&mut self, class: &str, from: (i64, i64), to: (i64, i64), title: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}">"#);
        self.title_of("line", title);
    }

    fn title_of(&mut self, element: &str, title: &str) {
        let title = escape(title);
        let _ = match title.is_empty() {
            true => writeln!(self.body, "</{element}>"),
            false => writeln!(self.body, "<title>{title}</title></{element}>"),
        };
    }

    fn text(&mut self, class: &str, (x, y): (i64, i64), words: &str) {
        let words = escape(words);
        let _ = writeln!(self.body, r#"<text class="{class}" x="{x}" y="{y}">{words}</text>"#);
    }

    /// Words to the right of a column, further down if there are some already; told by the title alone if that were
    /// too far from their place.
    fn label(&mut self, column: usize, y: i64, class: &str, words: &str) {
        let free = self.labels[column].max(y + 3);
        if free > y + 24 && class != "bad" {
            return;
        }
        self.labels[column] = free + 9;
        self.text(class, (self.x(column) + 9, free), &shortened(words, 34));
    }

    fn cross(&mut self, (x, y): (i64, i64)) {
        let (l, r, t, b) = (x - 4, x + 4, y - 4, y + 4);
        let _ = writeln!(self.body, r#"<path class="x" d="M{l} {t}L{r} {b}M{l} {b}L{r} {t}"/>"#);
    }

    fn shape(&mut self, class: &str, node: usize, at: u64, title: &str) {
        let (x, y) = (self.x(node), self.y(at));
        let (l, r, t, b) = (x - 5, x + 5, y - 5, y + 5);
        let _ = match class {
            "commit" => write!(self.body, r#"<circle class="commit" cx="{x}" cy="{y}" r="3">"#),
            "timer" | "read" => {
                write!(self.body, r#"<path class="{class}" d="M{x} {t}L{r} {y}L{x} {b}L{l} {y}Z">"#)
            }
            "start" => write!(self.body, r#"<path class="start" d="M{l} {t}L{r} {y}L{l} {b}Z">"#),
            _ => write!(self.body, r#"<rect class="{class}" x="{l}" y="{}" width="10" height="6">"#, y - 3),
        };
        let element = match class {
            "commit" => "circle",
            "timer" | "read" | "start" => "path",
            _ => "rect",
        };
        self.title_of(element, title);
    }

    /// Each node's line: whether it runs, leads, stands for election or is stopped.
    fn lives(&mut self) {
        let end = self.picture.end;
        for node in 0..self.picture.nodes {
            let mut up: Option<u64> = None;
            let mut down = 0;
            let mut role: (u64, &'static str, String) = (0, "", String::new());
            let mut bands: Vec<(&'static str, u64, u64, String)> = Vec::new();
            let mut pauses: Vec<(u64, u64)> = Vec::new();
            for Happening { at, what, .. } in self.picture.chronicle {
                match what {
                    What::Started { node: n, .. } if *n == node => {
                        bands.push(("down", down, *at, "down".to_owned()));
                        up = Some(*at);
                    }
                    What::Ended { node: n, .. } if *n == node => {
                        if let Some(since) = up.take() {
                            bands.push(("up", since, *at, String::new()));
                        }
                        down = *at;
                        let (since, class, words) = std::mem::replace(&mut role, (*at, "", String::new()));
                        bands.push((class, since, *at, words));
                        if let Some(pause) = pauses.last_mut() {
                            pause.1 = pause.1.min(*at);
                        }
                    }
                    What::Role { node: n, role: is, term } if *n == node => {
                        let class = match is {
                            Role::Leader => "leader",
                            Role::Candidate | Role::PreCandidate => "candidate",
                            Role::Follower => "",
                        };
                        let words = format!("{} of term {term}", role_name(*is));
                        let (since, class, words) = std::mem::replace(&mut role, (*at, class, words));
                        bands.push((class, since, *at, words));
                    }
                    What::Planned { node: Some(n), act: Act::Fault(Fault::Pause { lasts }), .. }
                        if *n == node && up.is_some() =>
                    {
                        pauses.push((*at, at + lasts));
                    }
                    _ => {}
                }
            }
            match up {
                Some(since) => bands.push(("up", since, end, String::new())),
                None => bands.push(("down", down, end, "down".to_owned())),
            }
            bands.push((role.1, role.0, end, role.2));
            bands.extend(
                pauses.into_iter().map(|(from, to)| ("paused", from, to, "stopped by a signal".to_owned())),
            );
            for (class, from, to, words) in bands {
                if !class.is_empty() && to >= self.begin && from < to {
                    let (x, from) = (self.x(node), from.max(self.begin));
                    let span = ((x, self.y(from)), (x, self.y(to.min(end))));
                    self.line(class, span.0, span.1, &words);
                }
            }
        }
    }

    /// Partitions, at the left.
    fn cuts(&mut self) {
        let mut open: Vec<(u64, &[(usize, usize)])> = Vec::new();
        let mut bands = Vec::new();
        for Happening { at, what, .. } in self.picture.chronicle {
            match what {
                What::Cut { paths } => open.push((*at, paths)),
                What::Mended { paths } => {
                    if let Some(place) = open.iter().position(|(_, open)| open == paths) {
                        let (since, paths) = open.remove(place);
                        bands.push((since, *at, paths));
                    }
                }
                What::Settling { .. } => {
                    bands.extend(open.drain(..).map(|(since, paths)| (since, *at, paths)));
                }
                _ => {}
            }
        }
        let end = self.picture.end;
        bands.extend(open.into_iter().map(|(since, paths)| (since, end, paths)));
        let mut free = TOP + 28;
        let begin = self.begin;
        let bands = bands.into_iter().filter(|(_, to, _)| *to >= begin);
        for (place, (from, to, paths)) in bands.enumerate() {
            let (x, y) = (76 + 5 * (place as i64 % 4), self.y(from.max(self.begin)));
            let words = format!("cut {}", paths_in_words(paths));
            let title = format!("{words}, from {} to {}", clock_face(from), clock_face(to));
            self.line("cut", (x, y), (x, self.y(to)), &title);
            free = free.max(y + 4);
            self.text("m bad", (100, free), &shortened(&words, 26));
            free += 10;
        }
    }

    fn messages(&mut self) {
        let missed: BTreeSet<(usize, usize, u64)> = self
            .picture
            .chronicle
            .iter()
            .filter_map(|h| match h.what {
                What::Missed { from, to } => Some((from, to, h.at)),
                _ => None,
            })
            .collect();
        let jobs: BTreeMap<(u64, u64), &'static str> = self
            .picture
            .chronicle
            .iter()
            .filter_map(|h| match h.what {
                What::Wants { client, number, job } => Some(((client, number), job)),
                _ => None,
            })
            .collect();
        let unheard: BTreeSet<(u64, u64, u64)> = self
            .shown
            .iter()
            .filter_map(|h| match h.what {
                What::ReplyLost { client, number, .. } => Some((h.step, client, number)),
                _ => None,
            })
            .collect();
        let (begin, end) = (self.begin, self.picture.end);
        let mut waiting = 0;
        for Happening { step, at, what } in self.picture.chronicle {
            let inside = *at >= begin;
            match what {
                What::Sent { from, to, arrives, what } => {
                    if !inside && arrives.is_none_or(|arrives| arrives < begin) {
                        continue;
                    }
                    let beat = what.starts_with("Beat");
                    if !inside && (beat || waiting >= SHOWN_USUALLY) {
                        continue;
                    }
                    waiting += usize::from(!inside);
                    let miss = arrives.is_some_and(|arrives| missed.contains(&(*from, *to, arrives)));
                    let tail = (self.x(*from), self.y((*at).max(begin)));
                    let title =
                        format!("{} {} to {}: {what}", clock_face(*at), node_name(*from), node_name(*to));
                    let ends = (self.x(*to), arrives.map(|arrives| (arrives, self.y(arrives.min(end)))));
                    self.arrow(beat, tail, ends, miss, &title, what);
                }
                What::Asked { client, number, attempt, node, arrives } if *arrives >= begin => {
                    let job = jobs.get(&(*client, *number)).copied().unwrap_or("request");
                    let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                    let words = format!("c{client} {job} #{number}{again}");
                    let (from, to) = (
                        (self.clients(), self.y((*at).max(begin))),
                        (self.x(*node), self.y((*arrives).min(end))),
                    );
                    self.line("b client", from, to, &format!("{} {words}", clock_face(*at)));
                    self.head("client", from, to);
                    self.label(self.picture.nodes, from.1, "m", &words);
                }
                What::Replied { node, client, number, what, .. } if inside => {
                    let y = self.y(*at);
                    let (from, to) = ((self.x(*node), y), (self.clients(), y));
                    let lost = unheard.contains(&(*step, *client, *number));
                    let words = format!("c{client} #{number}: {what}");
                    self.line(if lost { "b lost" } else { "b client" }, from, to, &words);
                    match lost {
                        true => self.cross(((from.0 + to.0) / 2, y)),
                        false => self.head("client", from, to),
                    }
                    self.label(self.picture.nodes, y, "m", &words);
                }
                What::GaveUp { client, number } if inside => {
                    let words = format!("c{client} gives up #{number}");
                    self.label(self.picture.nodes, self.y(*at), "m", &words);
                }
                _ => {}
            }
        }
    }

    /// A message between nodes: whole, lost on the way, or still on its way when the run ended.
    fn arrow(
        &mut self,
        beat: bool,
        tail: (i64, i64),
        (x, arrival): (i64, Option<(u64, i64)>),
        missed: bool,
        title: &str,
        what: &str,
    ) {
        let bottom = self.bottom();
        let (class, head) = match arrival {
            None => ("b lost", ((tail.0 + x) / 2, (tail.1 + 14).min(bottom))),
            Some(_) if missed => ("b lost", (x, arrival.map_or(0, |a| a.1))),
            Some((at, _)) if at > self.picture.end => ("b msg", ((tail.0 + x) / 2, bottom)),
            Some((_, y)) => (if beat { "b beat" } else { "b msg" }, (x, y)),
        };
        self.line(class, tail, head, title);
        match arrival {
            None => self.cross(head),
            Some(_) if missed => self.cross(head),
            Some((at, _)) if at > self.picture.end => {}
            Some(_) => self.head(if beat { "beat" } else { "msg" }, tail, head),
        }
        if beat {
            return;
        }
        let (dx, dy) = ((head.0 - tail.0) as f64, (head.1 - tail.1) as f64);
        let angle = if dx == 0.0 { 0.0 } else { (dy / dx).atan().to_degrees() };
        let words = escape(&shortened(what, 32));
        // In the middle of the first gap, where no column is.
        let x = tail.0 + (COLUMN / 2) * (x - tail.0).signum();
        let y = tail.1 + ((x - tail.0) as f64 * angle.to_radians().tan()) as i64;
        let _ = writeln!(
            self.body,
            r#"<text class="m" text-anchor="middle" transform="translate({x} {}) rotate({angle:.0})">{words}</text>"#,
            y - 2
        );
    }

    /// An arrow's head, as two strokes.
    fn head(&mut self, class: &str, tail: (i64, i64), head: (i64, i64)) {
        let (dx, dy) = ((head.0 - tail.0) as f64, (head.1 - tail.1) as f64);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        let (ux, uy) = (dx / length * 7.0, dy / length * 7.0);
        let wing = |side: f64| {
            let (x, y) = (head.0 as f64 - ux - uy * side, head.1 as f64 - uy + ux * side);
            format!("{:.0} {:.0}", x, y)
        };
        let (one, other) = (wing(0.5), wing(-0.5));
        let _ = writeln!(self.body, r#"<path class="b {class}" d="M{one}L{} {}L{other}"/>"#, head.0, head.1);
    }

    /// What happens at one node.
    fn marks(&mut self) {
        let shown = self.shown;
        for Happening { step, at, what } in shown {
            let y = self.y(*at);
            let when = format!("step {step}, {}", clock_face(*at));
            match what {
                What::Started { node, last } => {
                    self.shape("start", *node, *at, &when);
                    self.label(*node, y, "", &format!("starts, last entry {last}"));
                }
                What::Ended { node, end } => {
                    self.cross((self.x(*node), y));
                    let words = match end {
                        End::Kill => "process ends",
                        End::Power => "power cut",
                    };
                    self.label(*node, y, "bad", words);
                }
                What::Role { node, role, term } => {
                    let class = if *role == Role::Leader { "h" } else { "t" };
                    let words = match role {
                        Role::Leader => format!("LEADS term {term}"),
                        other => format!("{} t{term}", role_name(*other)),
                    };
                    self.label(*node, y, class, &words);
                }
                What::Committed { node, index } => {
                    self.shape("commit", *node, *at, &format!("{when}: commits through {index}"));
                    self.label(*node, y, "m", &format!("commit {index}"));
                }
                What::Truncated { node, from } => {
                    self.shape("fault", *node, *at, &when);
                    self.label(*node, y, "bad", &format!("log cut from {from}"));
                }
                What::Engine { node, trace } => {
                    if let Some((class, words)) = engine_mark(trace) {
                        self.shape(class, *node, *at, &format!("{when}: {words}"));
                        self.label(*node, y, "m", &words);
                    }
                }
                What::Read { node, index, known } => {
                    let words = format!("read sees {index}, known {known}");
                    self.shape("read", *node, *at, &format!("{when}: {words}"));
                    self.label(*node, y, if index < known { "bad" } else { "m" }, &words);
                }
                What::Planned { node: Some(node), number, act } => {
                    self.shape("fault", *node, *at, &format!("{when}: #{number} {act}"));
                    self.label(*node, y, "bad", &format!("#{number} {}", crate::report::act_name(act)));
                }
                What::Planned { node: None, number, act } => {
                    let words = format!("#{number} {}", crate::report::act_name(act));
                    self.text("m bad", (100, y - 6), &shortened(&words, 26));
                }
                What::Recovered { node, what } => {
                    self.label(*node, y, "t", &format!("{what} is well again"));
                }
                What::Settling { .. } => {
                    let right = self.clients() + 20;
                    self.line("down", (GUTTER, y), (right, y), "clients and faults stop");
                    self.text("m", (100, y), "clients and faults stop");
                }
                _ => {}
            }
        }
    }

    fn finish(mut self, title: &[String]) -> String {
        let bottom = self.bottom();
        let (width, nodes) = (self.clients() + 200, self.picture.nodes);
        let mut last = 0;
        for place in 0..self.moments.len() {
            let y = self.heights[place];
            if y >= last + 24 || place == 0 {
                last = y;
                self.text("t", (4, y + 3), &clock_face_fine(self.moments[place]));
            }
        }
        if let Some(Happening { what: What::Failed(violation), .. }) = self.shown.last() {
            self.line("badline", (4, bottom), (width - 4, bottom), "");
            let words = format!("BROKEN HERE: {violation}");
            self.text("h bad", (8, bottom + 16), &shortened(&words, (width / 8) as usize));
        }
        for node in 0..nodes {
            let class = if self.picture.marked.contains(&node) { "h bad" } else { "h" };
            self.text(class, (self.x(node) - 8, TOP), &node_name(node));
        }
        self.text("h", (self.clients() - 20, TOP), "clients");
        for (place, line) in title.iter().take(4).enumerate() {
            let class = if place == 0 { "h" } else { "" };
            self.text(class, (8, 18 + 15 * place as i64), &shortened(line, (width / 7) as usize));
        }
        let height = bottom + 30;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{}{}</svg>\n",
            legend(),
            self.body
        )
    }
}

/// What each shape means.
fn legend() -> String {
    let mut out = String::new();
    let mut x = 8;
    let mut item = |shape: &str, words: &str| {
        let y = 90 + 16 * (x / 640);
        let at = 8 + x % 640;
        let _ = writeln!(
            out,
            r#"<g transform="translate({at} {y})">{shape}<text x="24" y="3">{words}</text></g>"#
        );
        x += 160;
    };
    let stroke = |class: &str| format!(r#"<line class="b {class}" x1="0" y1="0" x2="20" y2="0"/>"#);
    item(&stroke("msg"), "message");
    item(&stroke("beat"), "heartbeat or its answer");
    item(&stroke("client"), "request or answer");
    item(
        &format!(r#"{}<path class="x" d="M6 -4L14 4M6 4L14 -4"/>"#, stroke("lost")),
        "lost, or process ends",
    );
    item(&stroke("leader"), "leads");
    item(&stroke("candidate"), "stands for election");
    item(&stroke("paused"), "stopped by a signal");
    item(&stroke("down"), "down");
    item(r#"<circle class="commit" cx="10" cy="0" r="3"/>"#, "commits through");
    item(r#"<path class="timer" d="M10 -5L15 0L10 5L5 0Z"/>"#, "timers");
    item(r#"<path class="read" d="M10 -5L15 0L10 5L5 0Z"/>"#, "a read is answered");
    item(r#"<rect class="fault" x="5" y="-3" width="10" height="6"/>"#, "fault; grey: disk");
    out
}

/// How far apart two moments are drawn, by the microseconds between them.
fn gap_height(gap: u64) -> i64 {
    match gap {
        0 => 0,
        gap => 3 + 2 * i64::from((gap / 100 + 1).ilog2()).min(12),
    }
}

/// Minutes, seconds and microseconds.
fn clock_face_fine(micros: u64) -> String {
    format!("{:02}:{:02}.{:06}", micros / 60_000_000, micros / 1_000_000 % 60, micros % 1_000_000)
}

/// Paths as `1>2 1>3`.
pub fn paths_in_words(paths: &[(usize, usize)]) -> String {
    let words: Vec<String> = paths.iter().map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect();
    words.join(" ")
}

fn shortened(words: &str, most: usize) -> String {
    match words.char_indices().nth(most) {
        Some((place, _)) => format!("{}…", &words[..place]),
        None => words.to_owned(),
    }
}

fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if (c as u32) < 0x20 => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

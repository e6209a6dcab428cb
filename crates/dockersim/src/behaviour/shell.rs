//! As much of busybox as is needed to know what a command line would do: what it prints, when it ends, what it listens on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::reply::Channel;

/// What stands in a container's own file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) mode: u32,
    pub(crate) content: Arc<[u8]>,
    pub(crate) directory: bool,
    pub(crate) mtime: u64,
}

pub(crate) type Files = BTreeMap<String, FileEntry>;

/// Rounds of a loop that are looked at.
const ROUNDS: usize = 100;
/// Lines of output that are kept.
const LINES: usize = 1_000;
/// Commands in all: loops in loops end here.
const STEPS: usize = 10_000;

const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gzip",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "killall",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nice",
    "nohup",
    "nslookup",
    "od",
    "pgrep",
    "ping",
    "pkill",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "su",
    "sync",
    "tail",
    "tar",
    "tee",
    "telnet",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "usleep",
    "vi",
    "watch",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// Files that every image of ours and every container has.
const OF_EVERY_CONTAINER: &[&str] = &["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

const DIRECTORIES: &[&str] = &["/", "/bin", "/dev", "/etc", "/proc", "/root", "/sys", "/tmp", "/var", "/home", "/usr", "/sbin", "/run"];

/// How a command leaves the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It ended with a code.
    Code(i64),
    /// The whole shell ended.
    Exit(i64),
    /// It goes on for ever.
    Forever,
}

pub(crate) struct Shell<'a> {
    files: &'a mut Files,
    vars: BTreeMap<String, String>,
    only_applets: bool,
    /// What `wget`, `nc` and commands nobody knows end with.
    pub(crate) unknown_code: Option<i64>,
    pub(crate) lines: Vec<(u64, Channel, String)>,
    pub(crate) ms: u64,
    pub(crate) ports: Vec<u16>,
    /// The exit code of the handler of SIGTERM.
    pub(crate) trap: Option<i64>,
    pub(crate) missing: Option<String>,
    /// Bytes printed without an end of line.
    partial: String,
    steps: usize,
    /// Whether input is read and given back.
    pub(crate) echoes: bool,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(files: &'a mut Files, env: &[String], only_applets: bool) -> Self {
        let vars = env.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Self {
            files,
            vars,
            only_applets,
            unknown_code: None,
            lines: Vec::new(),
            ms: 0,
            ports: Vec::new(),
            trap: None,
            missing: None,
            partial: String::new(),
            steps: 0,
            echoes: false,
        }
    }

    /// Runs a command line as the first process; the exit code, or `None` if it goes on for ever.
    pub(crate) fn top(&mut self, command: &[String]) -> Option<i64> {
        let word = command.first().map_or("", String::as_str);
        let program = word.rsplit('/').next().unwrap_or(word);
        if self.only_applets && !APPLETS.contains(&program) && !self.files.contains_key(word) {
            self.missing = Some(word.to_owned());
            return Some(127);
        }
        let code = match self.command(command) {
            Flow::Code(code) | Flow::Exit(code) => Some(code),
            Flow::Forever => None,
        };
        if !self.partial.is_empty() {
            let rest = std::mem::take(&mut self.partial);
            self.lines.push((self.ms, Channel::Out, rest));
        }
        code
    }

    fn print(&mut self, channel: Channel, text: &str, newline: bool) {
        if self.lines.len() >= LINES {
            return;
        }
        let text = format!("{}{text}", std::mem::take(&mut self.partial));
        let mut parts: Vec<&str> = text.split('\n').collect();
        if newline {
            self.lines.extend(parts.into_iter().map(|p| (self.ms, channel, p.to_owned())));
        } else {
            let rest = parts.pop().unwrap_or("").to_owned();
            self.lines.extend(parts.into_iter().map(|p| (self.ms, channel, p.to_owned())));
            self.partial = rest;
        }
    }

    fn command(&mut self, argv: &[String]) -> Flow {
        self.steps += 1;
        if self.steps > STEPS {
            return Flow::Forever;
        }
        let Some(word) = argv.first() else { return Flow::Code(0) };
        let args = &argv[1..];
        let arg = |i: usize| args.get(i).map_or("", String::as_str);
        match word.rsplit('/').next().unwrap_or(word) {
            "true" | ":" | "export" | "set" | "cd" | "umask" | "chmod" | "chown" | "sync" => Flow::Code(0),
            "false" => Flow::Code(1),
            "exit" => Flow::Exit(arg(0).parse::<i64>().unwrap_or(0) & 0xff),
            "echo" => {
                let newline = arg(0) != "-n";
                let text = args.iter().skip(usize::from(!newline)).map(String::as_str).collect::<Vec<_>>().join(" ");
                self.print(Channel::Out, &text, newline);
                Flow::Code(0)
            }
            "printf" => {
                let text = arg(0).replace("\\n", "\n").replacen("%s", arg(1), 1);
                self.print(Channel::Out, &text, false);
                Flow::Code(0)
            }
            "sleep" => self.sleep(arg(0), 1000.0),
            "usleep" => self.sleep(arg(0), 0.001),
            "exec" | "nohup" | "time" => match self.command(args) {
                Flow::Code(code) if word == "exec" => Flow::Exit(code),
                flow => flow,
            },
            "trap" => {
                if args.iter().skip(1).any(|s| matches!(s.trim_start_matches("SIG"), "TERM" | "15" | "EXIT")) {
                    let script = arg(0).to_owned();
                    let mut files = self.files.clone();
                    let mut inner = Shell::new(&mut files, &[], false);
                    inner.steps = self.steps;
                    self.trap = match inner.script(&script) {
                        Flow::Exit(code) => Some(code),
                        Flow::Code(_) | Flow::Forever => self.trap,
                    };
                }
                Flow::Code(0)
            }
            "wait" => Flow::Forever,
            "sh" | "ash" => match args.iter().position(|a| a.starts_with('-') && a.ends_with('c')) {
                Some(at) => {
                    let script = args.get(at + 1).cloned().unwrap_or_default();
                    match self.script(&script) {
                        Flow::Exit(code) => Flow::Code(code),
                        flow => flow,
                    }
                }
                None => self.script_file(args),
            },
            "cat" if args.is_empty() => {
                self.echoes = true;
                Flow::Code(0)
            }
            "cat" => self.cat(args),
            "test" => self.test(args),
            "[" => self.test(args.strip_suffix(&["]".to_owned()]).unwrap_or(args)),
            "touch" | "mkdir" => {
                let directory = word.ends_with("mkdir");
                for path in args.iter().filter(|a| !a.starts_with('-')) {
                    self.files.entry(normal(path)).or_insert_with(|| file(b"", directory));
                }
                Flow::Code(0)
            }
            "rm" => {
                let gone: Vec<bool> =
                    args.iter().filter(|a| !a.starts_with('-')).map(|path| self.files.remove(&normal(path)).is_some()).collect();
                Flow::Code(i64::from(gone.contains(&false) && !args.iter().any(|a| a.starts_with('-') && a.contains('f'))))
            }
            "env" | "printenv" => {
                for line in self.vars.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>() {
                    self.print(Channel::Out, &line, true);
                }
                Flow::Code(0)
            }
            "whoami" => {
                self.print(Channel::Out, "root", true);
                Flow::Code(0)
            }
            "httpd" => {
                self.ports.push(after(args, "-p").and_then(|p| p.rsplit(':').next()?.parse().ok()).unwrap_or(80));
                if args.iter().any(|a| a.starts_with("-f")) { Flow::Forever } else { Flow::Code(0) }
            }
            "nc" if args.iter().any(|a| a.starts_with('-') && a.contains('l')) => {
                let port = after(args, "-p").or_else(|| args.last().map(String::as_str)).and_then(|p| p.parse::<u16>().ok());
                self.ports.extend(port);
                Flow::Forever
            }
            "tail" if args.iter().any(|a| a == "-f" || a == "-F") => Flow::Forever,
            "yes" | "top" | "watch" => Flow::Forever,
            "hostname" => {
                let name = self.vars.get("HOSTNAME").cloned().unwrap_or_default();
                self.print(Channel::Out, &name, true);
                Flow::Code(0)
            }
            _ if word.contains('=') && !word.starts_with('=') => {
                if let Some((key, value)) = word.split_once('=') {
                    self.vars.insert(key.to_owned(), value.to_owned());
                }
                Flow::Code(0)
            }
            program if self.only_applets && !APPLETS.contains(&program) && !self.files.contains_key(word) => {
                self.print(Channel::Err, &format!("sh: {word}: not found"), true);
                Flow::Code(127)
            }
            _ => match self.unknown_code {
                Some(code) => Flow::Code(code),
                None if self.only_applets => Flow::Code(0),
                None => Flow::Forever,
            },
        }
    }

    /// `sh FILE`; without a file its input is at its end at once, as nobody has a terminal.
    fn script_file(&mut self, args: &[String]) -> Flow {
        let Some(path) = args.iter().find(|a| !a.starts_with('-')) else { return Flow::Code(0) };
        let Some(file) = self.files.get(&normal(path)) else {
            self.print(Channel::Err, &format!("sh: can't open '{path}': No such file or directory"), true);
            return Flow::Code(2);
        };
        let text = String::from_utf8_lossy(&file.content.clone()).into_owned();
        match self.script(&text) {
            Flow::Exit(code) => Flow::Code(code),
            flow => flow,
        }
    }

    fn sleep(&mut self, text: &str, unit: f64) -> Flow {
        let (number, factor) = match text.chars().last() {
            Some('m') => (&text[..text.len() - 1], 60.0),
            Some('h') => (&text[..text.len() - 1], 3600.0),
            Some('d') => (&text[..text.len() - 1], 86_400.0),
            Some('s') => (&text[..text.len() - 1], 1.0),
            _ => (text, 1.0),
        };
        if matches!(text, "infinity" | "inf") {
            return Flow::Forever;
        }
        match number.parse::<f64>() {
            Ok(amount) if amount.is_finite() && amount >= 0.0 => {
                self.ms = self.ms.saturating_add((amount * factor * unit).min(1e15) as u64);
                Flow::Code(0)
            }
            _ => {
                self.print(Channel::Err, &format!("sleep: invalid number '{text}'"), true);
                Flow::Code(1)
            }
        }
    }

    fn cat(&mut self, args: &[String]) -> Flow {
        let mut code = 0;
        for path in args.iter().filter(|a| !a.starts_with('-')) {
            match self.files.get(&normal(path)) {
                Some(entry) if !entry.directory => {
                    let text = String::from_utf8_lossy(&entry.content.clone()).into_owned();
                    self.print(Channel::Out, &text, false);
                }
                _ => {
                    self.print(Channel::Err, &format!("cat: can't open '{path}': No such file or directory"), true);
                    code = 1;
                }
            }
        }
        Flow::Code(code)
    }

    fn exists(&self, path: &str) -> bool {
        exists(self.files, path)
    }

    fn test(&self, args: &[String]) -> Flow {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let truth = match words.as_slice() {
            ["!", rest @ ..] => {
                let rest: Vec<String> = rest.iter().map(|s| (*s).to_owned()).collect();
                return match self.test(&rest) {
                    Flow::Code(code) => Flow::Code(1 - code.min(1)),
                    flow => flow,
                };
            }
            ["-e" | "-f" | "-r" | "-x", path] => self.exists(path),
            ["-s", path] => self.files.get(&normal(path)).is_some_and(|f| !f.content.is_empty()),
            ["-d", path] => DIRECTORIES.contains(path) || self.files.get(&normal(path)).is_some_and(|f| f.directory),
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            [left, "=" | "==", right] => left == right,
            [left, "!=", right] => left != right,
            [left, "-eq", right] => left == right,
            [left, "-lt", right] => left.parse::<i64>().ok() < right.parse::<i64>().ok(),
            [left, "-gt", right] => left.parse::<i64>().ok() > right.parse::<i64>().ok(),
            [one] => !one.is_empty(),
            _ => false,
        };
        Flow::Code(i64::from(!truth))
    }

    fn script(&mut self, text: &str) -> Flow {
        let tokens = tokens(text);
        let mut at = 0;
        self.list(&tokens, &mut at, &[])
    }

    /// Statements up to one of the closing words.
    fn list(&mut self, tokens: &[Token], at: &mut usize, until: &[&str]) -> Flow {
        let mut last = Flow::Code(0);
        // Whether the next statement runs, after `&&` and `||`.
        let mut run = true;
        while let Some(token) = tokens.get(*at) {
            match token {
                Token::Operator(op) => {
                    *at += 1;
                    match op.as_str() {
                        "&&" => run = matches!(last, Flow::Code(0)),
                        "||" => run = !matches!(last, Flow::Code(0)),
                        _ => run = true,
                    }
                    continue;
                }
                Token::Word { text, quoted: false } if until.contains(&text.as_str()) => return last,
                Token::Word { text, quoted: false } if matches!(text.as_str(), "while" | "until" | "for" | "if") => {
                    let flow = self.compound(tokens, at, run);
                    if run {
                        last = flow;
                    }
                }
                Token::Word { .. } => {
                    let (words, background, piped) = simple(tokens, at);
                    if run {
                        let before = self.ms;
                        let flow = self.statement(&words, piped);
                        last = if background {
                            self.ms = before;
                            Flow::Code(0)
                        } else {
                            flow
                        };
                    }
                }
            }
            if matches!(last, Flow::Exit(_) | Flow::Forever) && run {
                return last;
            }
        }
        last
    }

    fn compound(&mut self, tokens: &[Token], at: &mut usize, run: bool) -> Flow {
        let word = tokens[*at].text().to_owned();
        *at += 1;
        let start = *at;
        if word == "if" {
            return self.branch(tokens, at, run);
        }
        let items: Vec<String> = if word == "for" {
            let name_and_items: Vec<String> = skip_to(tokens, at, "do").iter().map(|t| t.text().to_owned()).collect();
            name_and_items.into_iter().filter(|w| w != "in" && w != ";").collect()
        } else {
            skip_to(tokens, at, "do");
            Vec::new()
        };
        let body = *at + 1;
        let mut end = body;
        skip_block(tokens, &mut end, "do", "done");
        *at = end + 1;
        if !run {
            return Flow::Code(0);
        }
        let mut last = Flow::Code(0);
        if word == "for" {
            let name = items.first().cloned().unwrap_or_default();
            for item in items.iter().skip(1).take(ROUNDS) {
                let item = self.expand(item);
                self.vars.insert(name.clone(), item);
                last = self.list(tokens, &mut body.clone(), &["done"]);
                if matches!(last, Flow::Exit(_) | Flow::Forever) {
                    return last;
                }
            }
            return last;
        }
        for _ in 0..ROUNDS {
            let condition = self.list(tokens, &mut start.clone(), &["do"]);
            match condition {
                Flow::Code(code) if (code == 0) == (word == "while") => {}
                Flow::Code(_) => return last,
                flow => return flow,
            }
            last = self.list(tokens, &mut body.clone(), &["done"]);
            if matches!(last, Flow::Exit(_) | Flow::Forever) {
                return last;
            }
        }
        Flow::Forever
    }

    fn branch(&mut self, tokens: &[Token], at: &mut usize, run: bool) -> Flow {
        let mut end = *at;
        skip_block(tokens, &mut end, "if", "fi");
        let after = end + 1;
        if !run {
            *at = after;
            return Flow::Code(0);
        }
        let condition = self.list(tokens, at, &["then"]);
        let taken = match condition {
            Flow::Code(code) => code == 0,
            flow => return flow,
        };
        *at += 1;
        let flow = if taken {
            self.list(tokens, at, &["else", "elif", "fi"])
        } else {
            let mut depth = 0;
            while let Some(token) = tokens.get(*at) {
                match token.text() {
                    "if" => depth += 1,
                    "fi" if depth > 0 => depth -= 1,
                    "else" | "fi" if depth == 0 => break,
                    _ => {}
                }
                *at += 1;
            }
            if tokens.get(*at).is_some_and(|t| t.text() == "else") {
                *at += 1;
                self.list(tokens, at, &["fi"])
            } else {
                Flow::Code(0)
            }
        };
        *at = after;
        flow
    }

    fn statement(&mut self, words: &[Token], piped: bool) -> Flow {
        let mut argv = Vec::new();
        let mut target: Option<(String, bool)> = None;
        let mut to_err = false;
        let mut words = words.iter();
        while let Some(token) = words.next() {
            let text = token.text();
            match text {
                ">&2" | "1>&2" if !token.quoted() => to_err = true,
                "2>&1" if !token.quoted() => {}
                ">" | ">>" | "1>" | "2>" | "<" if !token.quoted() => {
                    let path = words.next().map(|t| self.expand(t.text())).unwrap_or_default();
                    if text.starts_with('>') || text.starts_with('1') {
                        target = Some((path, text == ">>"));
                    }
                }
                _ if !token.quoted() && (text.starts_with("2>") || text.starts_with('<')) => {}
                _ if !token.quoted() && text.starts_with('>') && text.len() > 1 => {
                    let path = text.trim_start_matches('>');
                    target = Some((self.expand(path), text.starts_with(">>")));
                }
                _ => argv.push(if token.single() { text.to_owned() } else { self.expand(text) }),
            }
        }
        let from = self.lines.len();
        let flow = self.command(&argv);
        if to_err {
            self.lines[from..].iter_mut().for_each(|l| l.1 = Channel::Err);
        }
        if piped {
            self.lines.truncate(from);
        }
        if let Some((path, append)) = target {
            let mut content: Vec<u8> = self.lines.drain(from..).flat_map(|(_, _, l)| (l + "\n").into_bytes()).collect();
            content.extend(std::mem::take(&mut self.partial).into_bytes());
            if path != "/dev/null" {
                let entry = self.files.entry(normal(&path)).or_insert_with(|| file(b"", false));
                let mut all = if append { entry.content.to_vec() } else { Vec::new() };
                all.extend(content);
                entry.content = all.into();
            }
        }
        flow
    }

    fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(inner) = rest.strip_prefix('{') {
                let end = inner.find('}').unwrap_or(inner.len());
                out.push_str(self.vars.get(&inner[..end]).map_or("", String::as_str));
                rest = inner.get(end + 1..).unwrap_or("");
            } else {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if end == 0 {
                    out.push('$');
                } else {
                    out.push_str(self.vars.get(&rest[..end]).map_or("", String::as_str));
                }
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out
    }
}

/// Whether a path is there in a fresh container with these files.
pub(crate) fn exists(files: &Files, path: &str) -> bool {
    let path = normal(path);
    DIRECTORIES.contains(&path.as_str())
        || OF_EVERY_CONTAINER.contains(&path.as_str())
        || files.contains_key(&path)
        || files.range(format!("{path}/")..).next().is_some_and(|(k, _)| k.starts_with(&format!("{path}/")))
        || path.strip_prefix("/bin/").is_some_and(|p| APPLETS.contains(&p) || p == "busybox")
}

/// Whether a path is a directory in a fresh container with these files.
pub(crate) fn is_directory(files: &Files, path: &str) -> bool {
    let path = normal(path);
    DIRECTORIES.contains(&path.as_str())
        || files.get(&path).is_some_and(|f| f.directory)
        || files.range(format!("{path}/")..).next().is_some_and(|(k, _)| k.starts_with(&format!("{path}/")))
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

pub(crate) fn file(content: &[u8], directory: bool) -> FileEntry {
    FileEntry { mode: if directory { 0o755 } else { 0o644 }, content: content.into(), directory, mtime: 0 }
}

fn after<'b>(args: &'b [String], flag: &str) -> Option<&'b str> {
    let at = args.iter().position(|a| a.starts_with('-') && a.ends_with(flag.trim_start_matches('-')) && a.len() <= 5)?;
    args.get(at + 1).map(String::as_str)
}

#[derive(Clone, Debug)]
enum Token {
    Word { text: String, quoted: bool },
    Operator(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word { text, .. } => text.trim_start_matches('\u{1}'),
            Self::Operator(op) => op,
        }
    }

    fn quoted(&self) -> bool {
        matches!(self, Self::Word { quoted: true, .. })
    }

    /// In single quotes: nothing is expanded.
    fn single(&self) -> bool {
        matches!(self, Self::Word { text, .. } if text.starts_with('\u{1}'))
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut has_word) = (false, false);
    let mut chars = text.chars().peekable();
    let flush = |word: &mut String, quoted: &mut bool, has: &mut bool, out: &mut Vec<Token>| {
        if *has {
            out.push(Token::Word { text: std::mem::take(word), quoted: *quoted });
        }
        (*quoted, *has) = (false, false);
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                if c == '\'' && !has_word {
                    word.push('\u{1}');
                }
                (quoted, has_word) = (true, true);
                while let Some(inner) = chars.next() {
                    match inner {
                        _ if inner == c => break,
                        '\\' if c == '"' => word.extend(chars.next()),
                        _ => word.push(inner),
                    }
                }
            }
            '\\' => {
                has_word = true;
                word.extend(chars.next());
            }
            ' ' | '\t' => flush(&mut word, &mut quoted, &mut has_word, &mut out),
            // A comment; the end of its line stays.
            '#' if !has_word => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' => {
                flush(&mut word, &mut quoted, &mut has_word, &mut out);
                out.push(Token::Operator(";".to_owned()));
            }
            '&' if word.ends_with('>') => {
                word.push(c);
            }
            '&' | '|' => {
                flush(&mut word, &mut quoted, &mut has_word, &mut out);
                let double = chars.peek() == Some(&c);
                if double {
                    chars.next();
                }
                out.push(Token::Operator(if double { format!("{c}{c}") } else { c.to_string() }));
            }
            _ => {
                has_word = true;
                word.push(c);
            }
        }
    }
    flush(&mut word, &mut quoted, &mut has_word, &mut out);
    out
}

/// One simple command, whether it runs in the background, and whether its output goes into a pipe.
fn simple(tokens: &[Token], at: &mut usize) -> (Vec<Token>, bool, bool) {
    let mut words = Vec::new();
    while let Some(token) = tokens.get(*at) {
        match token {
            Token::Word { .. } => words.push(token.clone()),
            Token::Operator(op) if op == "&" => return (words, true, false),
            Token::Operator(op) if op == "|" => return (words, false, true),
            Token::Operator(_) => break,
        }
        *at += 1;
    }
    (words, false, false)
}

fn skip_to<'t>(tokens: &'t [Token], at: &mut usize, word: &str) -> &'t [Token] {
    let from = *at;
    while tokens.get(*at).is_some_and(|t| t.quoted() || t.text() != word) {
        *at += 1;
    }
    &tokens[from..(*at).min(tokens.len())]
}

/// Moves to the closing word that belongs to a block whose opening word was passed already.
fn skip_block(tokens: &[Token], at: &mut usize, open: &str, close: &str) {
    let mut depth = 0;
    while let Some(token) = tokens.get(*at) {
        if !token.quoted() {
            if token.text() == open {
                depth += 1;
            } else if token.text() == close {
                if depth == 0 {
                    return;
                }
                depth -= 1;
            }
        }
        *at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Option<i64>, u64, Vec<String>, Vec<u16>, Option<i64>) {
        let mut files = Files::new();
        let mut shell = Shell::new(&mut files, &["A=b".to_owned()], true);
        let code = shell.top(&["sh".to_owned(), "-c".to_owned(), script.to_owned()]);
        let lines = shell.lines.iter().map(|(_, c, l)| format!("{}{l}", if *c == Channel::Err { "!" } else { "" })).collect();
        (code, shell.ms, lines, shell.ports.clone(), shell.trap)
    }

    #[test]
    fn scripts_do_what_busybox_does() {
        let table: &[(&str, Option<i64>, u64, &[&str])] = &[
            ("echo hi; echo err >&2; exit 7", Some(7), 0, &["hi", "!err"]),
            ("for i in 1 2 3; do echo l$i; done; sleep 1000", Some(0), 1_000_000, &["l1", "l2", "l3"]),
            ("true && echo yes || echo no", Some(0), 0, &["yes"]),
            ("false && echo yes || echo no", Some(0), 0, &["no"]),
            ("if test -e /tmp/x; then echo a; else echo b; fi", Some(0), 0, &["b"]),
            ("touch /tmp/x; test -e /tmp/x && echo \"$A c\"", Some(0), 0, &["b c"]),
            ("sleep 0.3; exit 3", Some(3), 300, &[]),
            ("echo a > /f; cat /f", Some(0), 0, &["a"]),
        ];
        for (script, code, ms, lines) in table {
            let found = run(script);
            assert_eq!((found.0, found.1, found.2), (*code, *ms, lines.iter().map(|l| (*l).to_owned()).collect()), "{script}");
        }
        assert_eq!(run("while true; do sleep 1; done").0, None);
        assert_eq!(run("httpd -f -p 8080 -h /bin").3, [8080]);
        assert_eq!(run("sleep 1.4; exec httpd -f -p 80").0, None);
        assert_eq!(run("nc -lk -p 6379 -e true").3, [6379]);
        assert_eq!(run("trap 'exit 5' TERM; while :; do sleep 0.1; done").4, Some(5));
    }

    #[test]
    fn scripts_in_files_are_run() {
        let mut files = Files::new();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Shell::new(&mut files, &[], true).top(&words("sh /srv/init.sh")), Some(2));
        files
            .insert("/srv/init.sh".to_owned(), file(b"#!/bin/sh\n# twice\nset -e\ntouch /tmp/done # now\nexec tail -f /dev/null\n", false));
        assert_eq!(Shell::new(&mut files, &[], true).top(&words("sh /srv/init.sh")), None);
        assert_eq!(Shell::new(&mut files, &[], true).top(&words("test -f /tmp/done")), Some(0));
    }
}

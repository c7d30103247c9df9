//! Reads `tests/cases/transitions.txt`: what HAProxy does to a server in each state upon each command.
//!
//! Included by `#[path]` wherever the table is the oracle.

/// The whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Names of the commands, as in `ready` or `h down`, in the order of the cells of each row.
    pub(crate) commands: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One start state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Name, as in `maint_nochk`.
    pub(crate) start: String,
    pub(crate) before: State,
    /// `srv_uweight` before.
    pub(crate) weight: u32,
    /// `status` of `show stat` before.
    pub(crate) status: String,
    pub(crate) cells: Vec<Cell>,
}

/// `srv_admin_state` and `srv_op_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) admin: u32,
    pub(crate) op: u32,
}

/// What a command does in one start state, on each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell(Vec<(Vec<String>, Outcome)>);

/// What a command does in one start state on one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Right after the command.
    pub(crate) at_once: State,
    /// A second or two later.
    pub(crate) later: State,
    /// Whether the command is answered by an error.
    pub(crate) refused: bool,
}

impl Table {
    /// Parses the text of the table.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let mut titles = lines.next().ok_or("the table has no title line")?.split(" | ").map(str::trim);
        if titles.next() != Some("state") {
            return Err("the title line does not begin with `state`".to_owned());
        }
        let commands: Vec<String> = titles.skip(1).map(str::to_owned).collect();
        let rows: Vec<Row> = lines.map(Row::parse).collect::<Result<_, _>>()?;
        match rows.iter().find(|row| row.cells.len() != commands.len()) {
            Some(row) => Err(format!("{} has {} cells for {} commands", row.start, row.cells.len(), commands.len())),
            None => Ok(Self { commands, rows }),
        }
    }

    /// Every cell of the table with its row and the name of its command.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (&Row, &str, &Cell)> {
        let commands = || self.commands.iter().map(String::as_str);
        self.rows
            .iter()
            .flat_map(move |row| commands().zip(&row.cells).map(move |(command, cell)| (row, command, cell)))
    }
}

impl Row {
    fn parse(line: &str) -> Result<Self, String> {
        let strange = |what: &str| format!("{what} in the row {line:?}");
        let mut columns = line.split(" | ").map(str::trim);
        let start = columns.next().ok_or_else(|| strange("no name"))?.to_owned();
        let before = columns.next().ok_or_else(|| strange("no state before"))?;
        let (state, rest) = before.split_once(" uw=").ok_or_else(|| strange("no uw="))?;
        let (weight, status) = rest.split_once(' ').ok_or_else(|| strange("no status"))?;
        // The weight of `show stat` after the status says the same again.
        let (status, _) = status.rsplit_once('(').ok_or_else(|| strange("no weight after the status"))?;
        Ok(Self {
            start,
            before: State::parse(state)?,
            weight: weight.parse().map_err(|_| strange("a strange uw="))?,
            status: status.to_owned(),
            cells: columns.map(Cell::parse).collect::<Result<_, _>>()?,
        })
    }
}

impl State {
    fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(admin, op)| Some((admin.parse().ok()?, op.parse().ok()?)));
        let (admin, op) = numbers.ok_or_else(|| format!("{text:?} is not adm/op"))?;
        Ok(Self { admin, op })
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.admin, self.op)
    }
}

impl Cell {
    fn parse(text: &str) -> Result<Self, String> {
        let mut outcomes = Vec::new();
        for word in text.split_whitespace() {
            let (word, versions) = match word.split_once('[') {
                Some((word, versions)) => {
                    (word, versions.trim_end_matches(']').split(',').map(str::to_owned).collect())
                }
                None => (word, Vec::new()),
            };
            let (states, refused) = match word.strip_suffix("!ERR") {
                Some(states) => (states, true),
                None => (word, false),
            };
            let (at_once, later) = states.split_once("->").unwrap_or((states, states));
            let outcome = Outcome { at_once: State::parse(at_once)?, later: State::parse(later)?, refused };
            outcomes.push((versions, outcome));
        }
        if outcomes.is_empty() { Err("an empty cell".to_owned()) } else { Ok(Self(outcomes)) }
    }

    /// What happens on a branch, as `(2, 6)`; one that was not measured does as the latest before it.
    pub(crate) fn on(&self, branch: (u32, u32)) -> Option<Outcome> {
        let number = |version: &str| match version.split_once('.') {
            Some((major, minor)) => Some((major.parse().ok()?, minor.parse().ok()?)),
            None => Some((u32::MAX, 0)),
        };
        let fits = self.0.iter().filter_map(|(versions, outcome)| {
            let since = match versions.is_empty() {
                true => Some((0, 0)),
                false => versions.iter().filter_map(|version| number(version)).filter(|since| *since <= branch).max(),
            };
            Some((since?, *outcome))
        });
        fits.max_by_key(|(since, _)| *since).map(|(_, outcome)| outcome)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.at_once)?;
        if self.later != self.at_once {
            write!(f, "->{}", self.later)?;
        }
        if self.refused { f.write_str("!ERR") } else { Ok(()) }
    }
}

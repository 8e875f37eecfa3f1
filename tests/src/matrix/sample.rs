//! Which cells a run carries out.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use novacron_common::splitmix::SplitMix64;

use super::cell::{Cell, Victim, all};

/// The variable that replays a sample.
const SEED: &str = "NOVACRON_MATRIX_SEED";
/// The variable that selects cells: all whose name contains its value.
const CELL: &str = "NOVACRON_MATRIX_CELL";

/// One cell of each victim, in an order of chance.
#[must_use]
pub fn sample(seed: u64) -> Vec<Cell> {
    let mut chance = SplitMix64::new(seed);
    let mut victims = Victim::ALL;
    chance.shuffle(&mut victims);
    let of = |victim| all().into_iter().filter(move |cell| cell.victim == victim).collect::<Vec<_>>();
    victims.into_iter().map(of).map(|cells| cells[chance.index(cells.len())]).collect()
}

/// The seed of this run: that of `NOVACRON_MATRIX_SEED`, or one of the clock.
///
/// # Errors
/// When the variable holds no number.
pub fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED} is no number: {text:?}")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    }
}

/// The cells that `NOVACRON_MATRIX_CELL` names, all whose name contains it; `None` if it is not set.
///
/// # Errors
/// When it names none.
pub fn selected() -> Result<Option<Vec<Cell>>> {
    let Ok(part) = std::env::var(CELL) else { return Ok(None) };
    named(&part).map(Some)
}

fn named(part: &str) -> Result<Vec<Cell>> {
    let found: Vec<Cell> = all().into_iter().filter(|cell| cell.to_string().contains(part)).collect();
    ensure!(
        !found.is_empty(),
        "{CELL}={part:?}: no cell's name contains it; a name is VICTIM.BLOW.EDGE, such as link.cut.memory"
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_sample_has_every_victim_once_and_the_same_seed_makes_the_same_sample() {
        for seed in 0..200 {
            let cells = sample(seed);
            let victims: HashSet<Victim> = cells.iter().map(|cell| cell.victim).collect();
            assert_eq!((cells.len(), victims.len()), (8, 8));
            assert_eq!(cells, sample(seed));
        }
    }

    #[test]
    fn every_cell_comes_up_in_time() {
        let drawn: HashSet<Cell> = (0..2000).flat_map(sample).collect();
        let left: Vec<String> =
            all().iter().filter(|cell| !drawn.contains(cell)).map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn cells_are_selected_by_a_part_of_their_name_and_a_wrong_one_is_told() {
        assert_eq!(named("link.cut.memory").unwrap().len(), 1);
        assert_eq!(named("source-qemu.kill").unwrap().len(), 5);
        assert!(named("link.kill").unwrap_err().to_string().contains("VICTIM.BLOW.EDGE"));
    }
}

//! Tries every schedule, shortest first, until a download is lost, cut, hangs or is starved.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::{Core, Rules};
use crate::world::{Move, World};

/// A run that ends in a fault.
pub struct Found {
    pub moves: Vec<Move>,
    pub client: usize,
    pub fault: &'static str,
}

/// What a search has seen.
pub struct Search {
    pub found: Option<Found>,
    /// How many states were reached that differ.
    pub states: usize,
}

struct Node {
    world: World,
    core: Core<usize>,
    /// Where its last move stands.
    mv: Option<usize>,
}

/// All runs of `depth` moves at most. States that were seen, by another way, are not seen again.
pub fn search(rules: Rules, descriptors: u8, depth: usize) -> Search {
    // Each move, and where the one before it stands.
    let mut moves: Vec<(Option<usize>, Move)> = Vec::new();
    let mut seen = HashSet::new();
    let start = Node {
        world: World::new(descriptors),
        core: Core::new(rules),
        mv: None,
    };
    let mut nodes = vec![start];
    for _ in 0..depth {
        let mut next = Vec::new();
        for node in &nodes {
            let mut possible = node.world.moves();
            if node.world.has_news() || node.core.has_work() {
                possible.push(Move::Turn);
            }
            for mv in possible {
                let (mut world, mut core) = (node.world.clone(), node.core.clone());
                apply(mv, &mut world, &mut core);
                let mut hasher = DefaultHasher::new();
                (&world.scene, &core).hash(&mut hasher);
                if !seen.insert(hasher.finish()) {
                    continue;
                }
                moves.push((node.mv, mv));
                let last = moves.len() - 1;
                if let Some((client, fault)) = world.fault(core.has_work()) {
                    let moves = path(&moves, last);
                    let found = Some(Found {
                        moves,
                        client,
                        fault,
                    });
                    return Search {
                        found,
                        states: seen.len(),
                    };
                }
                next.push(Node {
                    world,
                    core,
                    mv: Some(last),
                });
            }
        }
        nodes = next;
    }
    Search {
        found: None,
        states: seen.len(),
    }
}

/// One move, of whoever makes it.
pub fn apply(mv: Move, world: &mut World, core: &mut Core<usize>) {
    if mv == Move::Turn {
        core.turn(world);
    } else {
        world.take(mv);
    }
}

fn path(moves: &[(Option<usize>, Move)], last: usize) -> Vec<Move> {
    let mut path = Vec::new();
    let mut at = Some(last);
    while let Some(index) = at {
        path.push(moves[index].1);
        at = moves[index].0;
    }
    path.reverse();
    path
}

//! Tries every schedule, shortest first, until a download is lost, cut, hangs or is starved.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::{Core, Rules};
use crate::world::{Step, World};

/// A run that ends in a fault.
pub struct Found {
    pub steps: Vec<Step>,
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
    /// Where its last step stands.
    step: Option<usize>,
}

/// All runs of `depth` steps at most. States that were seen, by another way, are not seen again.
pub fn search(rules: Rules, descriptors: u8, depth: usize) -> Search {
    // Each step, and where the one before it stands.
    let mut steps: Vec<(Option<usize>, Step)> = Vec::new();
    let mut seen = HashSet::new();
    let start = Node {
        world: World::new(descriptors),
        core: Core::new(rules),
        step: None,
    };
    let mut nodes = vec![start];
    for _ in 0..depth {
        let mut next = Vec::new();
        for node in &nodes {
            let mut possible = node.world.steps();
            if node.world.has_news() || node.core.has_work() {
                possible.push(Step::Turn);
            }
            for step in possible {
                let (mut world, mut core) = (node.world.clone(), node.core.clone());
                apply(step, &mut world, &mut core);
                let mut hasher = DefaultHasher::new();
                (&world.scene, &core).hash(&mut hasher);
                if !seen.insert(hasher.finish()) {
                    continue;
                }
                steps.push((node.step, step));
                let last = steps.len() - 1;
                if let Some((client, fault)) = world.fault(core.has_work()) {
                    let steps = path(&steps, last);
                    let found = Some(Found {
                        steps,
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
                    step: Some(last),
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

/// One step, of whoever takes it.
pub fn apply(step: Step, world: &mut World, core: &mut Core<usize>) {
    if step == Step::Turn {
        core.turn(world);
    } else {
        world.take(step);
    }
}

fn path(steps: &[(Option<usize>, Step)], last: usize) -> Vec<Step> {
    let mut path = Vec::new();
    let mut at = Some(last);
    while let Some(index) = at {
        path.push(steps[index].1);
        at = steps[index].0;
    }
    path.reverse();
    path
}

//! What targets may be used as, as far as that is known before anything is built.
//!
//! Not here: what is known of an output alone, like whether a toolchain is one of this machine (`image`, `builder`).

use cas_config::TargetKind;

use crate::BuildError;
use crate::graph::{Graph, TargetId};

/// Fails when a test is used for what it makes: it makes nothing. To wait for one is a dependency like any other. And when
/// something waits for a program that `cas run` runs, which no build ever does.
pub(crate) fn check(graph: &Graph<'_>) -> Result<(), BuildError> {
    for (target, needs) in graph.to_build() {
        let is_run = |need: &&TargetId| matches!(graph.target(**need).kind, TargetKind::Run(_));
        if let Some(need) = needs.iter().find(is_run) {
            let label = graph.label(*need).to_string();
            return Err(BuildError::Role { label, kind: "run", role: "a dependency: `cas run` runs it" });
        }
        let role = match &graph.target(target).kind {
            TargetKind::Image(_) => "part of an image",
            TargetKind::Artifact(artifact) => {
                crate::artifact::check_roles(graph, target, artifact)?;
                continue;
            }
            TargetKind::Npm(_) => "packed",
            _ => continue,
        };
        let is_test = |need: &&TargetId| matches!(graph.target(**need).kind, TargetKind::Test(_));
        if let Some(need) = needs.iter().find(is_test) {
            let label = graph.label(*need).to_string();
            return Err(BuildError::Role { label, kind: graph.target(*need).kind.name(), role });
        }
    }
    Ok(())
}

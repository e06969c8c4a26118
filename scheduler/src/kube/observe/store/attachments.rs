//! Which volumes are attached to which node. A node whose machine goes waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::engine::Event;
use assay_core::model::PodId;
use serde::Deserialize;

use crate::manifest::live::{Document, ManifestError};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    source: Source,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    persistent_volume_name: String,
}

/// The VolumeAttachments: one is there for as long as its volume is not detached.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// Node and PersistentVolume of each.
    known: BTreeMap<PodId, (Arc<str>, Arc<str>)>,
    /// The attachments of each node.
    by_node: BTreeMap<Arc<str>, BTreeSet<PodId>>,
    changed: BTreeSet<Arc<str>>,
}

impl Attachments {
    pub(super) fn apply(&mut self, id: &PodId, document: &Document) -> Result<(), ManifestError> {
        let Object { spec } = document.typed()?;
        let read = (spec.node_name.into(), spec.source.persistent_volume_name.into());
        if self.known.get(id) != Some(&read) {
            self.remove(id);
            self.changed.insert(Arc::clone(&read.0));
            self.by_node.entry(Arc::clone(&read.0)).or_default().insert(id.clone());
            self.known.insert(id.clone(), read);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &PodId) {
        let Some((node, _)) = self.known.remove(id) else { return };
        if let Some(attached) = self.by_node.get_mut(&node) {
            attached.remove(id);
            if attached.is_empty() {
                self.by_node.remove(&node);
            }
        }
        self.changed.insert(node);
    }

    pub(super) fn tell_all(&mut self) {
        self.changed = self.by_node.keys().cloned().collect();
    }

    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn tell(&mut self, tell: &mut dyn FnMut(Event)) {
        for node in std::mem::take(&mut self.changed) {
            let attached = self.by_node.get(&node).into_iter().flatten();
            let volumes = attached.filter_map(|id| self.known.get(id)).map(|(_, volume)| Arc::clone(volume));
            let volumes = volumes.collect();
            tell(Event::VolumeAttachments { node, volumes });
        }
    }
}

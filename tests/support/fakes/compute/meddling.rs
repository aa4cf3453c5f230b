//! What somebody else does to workloads, behind the platform's back.

use std::collections::BTreeMap;

use runtime_platform::ports::{
    clock::Clock,
    compute::{RevisionSpec, Settings},
};

use super::{FakeCompute, Made, Workload};

impl FakeCompute {
    /// Makes a revision from what has the most traffic, changed, and gives it all the traffic or none.
    /// It names the deployment that it was copied from, as a copy does.
    pub fn meddle(&self, workload: &str, takes_traffic: bool, change: impl FnOnce(&mut RevisionSpec)) {
        let now = self.clock.now();
        let mut state = self.state();
        let there = state.workloads.get_mut(workload).expect("the workload is there");
        let serving = there.traffic.iter().max_by_key(|(_, weight)| **weight).expect("something serves").0;
        let mut spec = there.revisions[serving].spec.clone();
        change(&mut spec);
        let name = format!("{workload}--meddled-{}", there.revisions.len());
        let tagged = spec.image.clone();
        let made = Made { spec, tagged, at: now, active: true, provisioned: true, replicas: None };
        there.revisions.insert(name.clone(), made);
        if takes_traffic {
            there.traffic = BTreeMap::from([(name.clone(), 100)]);
        }
        state.effects.push(format!("somebody makes {name}"));
    }

    /// Gives all the traffic to a revision that is there.
    pub fn move_traffic(&self, workload: &str, revision: &str) {
        let mut state = self.state();
        let there = state.workloads.get_mut(workload).expect("the workload is there");
        there.revisions.get_mut(revision).expect("the revision is there").active = true;
        there.traffic = BTreeMap::from([(revision.to_owned(), 100)]);
        state.effects.push(format!("somebody moves the traffic of {workload} to {revision}"));
    }

    /// Deletes a workload with all its revisions.
    pub fn remove(&self, workload: &str) {
        let mut state = self.state();
        state.workloads.remove(workload).expect("the workload is there");
        state.effects.push(format!("somebody deletes {workload}"));
    }

    /// Makes a workload that the platform knows nothing of, beside one that it knows.
    pub fn add_beside(&self, workload: &str, name: &str) {
        let mut state = self.state();
        let there = &state.workloads[workload];
        let made =
            Workload { group: there.group.clone(), settings: there.settings.clone(), ..Workload::default() };
        state.workloads.insert(name.to_owned(), made);
        state.effects.push(format!("somebody makes {name}"));
    }

    /// Changes what a workload has beside its revisions.
    pub fn change_settings(&self, workload: &str, change: impl FnOnce(&mut Settings)) {
        let mut state = self.state();
        change(&mut state.workloads.get_mut(workload).expect("the workload is there").settings);
        state.effects.push(format!("somebody changes the settings of {workload}"));
    }

    /// Leaves what serves with this many replicas: the autoscaler, or a replica that was killed.
    pub fn scale_to(&self, workload: &str, replicas: u32) {
        let mut state = self.state();
        let there = state.workloads.get_mut(workload).expect("the workload is there");
        for (name, made) in &mut there.revisions {
            if there.traffic.contains_key(name) {
                made.replicas = Some(replicas);
            }
        }
        state.effects.push(format!("{workload} has {replicas} replicas"));
    }

    /// Switches the revision that serves off.
    pub fn switch_off(&self, workload: &str) {
        let mut state = self.state();
        let there = state.workloads.get_mut(workload).expect("the workload is there");
        let traffic = there.traffic.clone();
        for (name, made) in &mut there.revisions {
            made.active = made.active && !traffic.contains_key(name);
        }
        state.effects.push(format!("somebody switches {workload} off"));
    }
}

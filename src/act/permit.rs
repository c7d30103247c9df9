//! Finds every reason not to make a change before anything is sent anywhere: all of them, not just the first.

use super::fleet::Fleet;
use super::instance::{Direction, Instance, Pass};
use super::target::Verdict;
use crate::decide::refuse::{owned, unexpected, without_rights};
use crate::keep::ownership::Ownership;
use crate::model::goal::{Goal, Requested};
use crate::model::state::AdminState;
use crate::model::text::a_few_of;
use crate::model::traffic::MinAvailable;
use crate::request::{OnOwned, Request};
use crate::time::clock;

/// Plans the change on all instances, and notes every refusal where it belongs.
pub fn permit(request: &Request, goal: Goal, ownership: &Ownership, fleet: &mut Fleet<'_>) {
    let pass = Pass {
        goals: &|target| Some(target.goal_for(goal)),
        direction: Direction::Forward,
        guard: None,
        signals: fleet.signals,
        admit: &|_| Ok(()),
    };
    for instance in &mut fleet.instances {
        find_what_was(request, ownership, instance);
        instance.plan(&pass);
        if instance.needs_commands() {
            instance.error = without_rights(&instance.contact);
        }
        if let Some(expected) = request.expect {
            for target in &mut instance.targets {
                let decision = target.plan.as_ref().map(|planned| &planned.decision);
                let refusal = decision.and_then(|decision| unexpected(expected, &target.before, decision));
                refusal.into_iter().for_each(|error| target.fail(error));
            }
        }
        say_what_has_moved(request, ownership, instance);
        mind_owners(request, ownership, instance);
        if let Some(guard) = request.guard {
            mind_guard(guard, &pass, instance);
        }
    }
}

/// Finds what each server was before it was taken out, where that is to be restored; a server that nothing is recorded of is
/// left alone.
fn find_what_was(request: &Request, ownership: &Ownership, instance: &mut Instance<'_>) {
    match request.requested {
        Some(Requested::Restore) => {}
        Some(Requested::Ready | Requested::Drain | Requested::Maint) | None => return,
    }
    let mut unknown = Vec::new();
    for target in instance.targets.iter_mut().filter(|target| target.is_at_work()) {
        target.was = ownership.find(&instance.contact, &target.before).and_then(|record| record.was);
        if target.was.is_none() {
            target.verdict = Verdict::Skipped;
            unknown.push(target.before.full_name());
        }
    }
    if !unknown.is_empty() {
        instance.warnings.push(format!(
            "{}: left alone: nothing is recorded to be restored; taking servers out with 'owner', 'reason' or 'expires' records \
             what they were",
            a_few_of(&unknown)
        ));
    }
}

/// Warns of servers that are put back at another address than they were taken out at: it may be another machine.
fn say_what_has_moved(request: &Request, ownership: &Ownership, instance: &mut Instance<'_>) {
    if request.state() != Some(AdminState::Ready) || ownership.is_empty() {
        return;
    }
    for target in &instance.targets {
        let server = &target.before;
        let record = ownership.find(&instance.contact, server);
        if let Some((record, had)) = record.and_then(|record| Some((record, record.moved_from(server)?))) {
            let by = record.claim.owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default();
            instance.warnings.push(format!(
                "{} had the address {had} when it was taken out{by}, and has {} now: make sure that this is the machine \
                 that is meant",
                server.full_name(),
                server.address
            ));
        }
    }
}

/// Refuses to bring a server closer to service that another owner has taken out, or leaves it alone; warns if its
/// weight is set.
fn mind_owners(request: &Request, ownership: &Ownership, instance: &mut Instance<'_>) {
    if request.ignore_owner || ownership.is_empty() {
        return;
    }
    let now = clock::now();
    let claimant = request.claim.as_ref().and_then(|claim| claim.owner.as_deref());
    for target in &mut instance.targets {
        let Some(record) = ownership.find(&instance.contact, &target.before) else { continue };
        let Some(error) = owned(&record.claim, claimant, now, &target.before) else { continue };
        let is_step_back = match (request.state(), record.state) {
            (Some(AdminState::Ready), _) | (Some(AdminState::Drain), AdminState::Maint) => true,
            (Some(AdminState::Drain | AdminState::Maint) | None, _) => false,
        };
        match (is_step_back, request.on_owned) {
            (true, OnOwned::Fail) => target.fail(error),
            (true, OnOwned::Skip) => {
                target.verdict = Verdict::Skipped;
                instance.warnings.push(format!("left alone: {error}"));
            }
            (false, _) if request.goal.is_some_and(|goal| goal.weight.is_some()) => {
                instance.warnings.push(format!("the weight is set anyway: {error}"));
            }
            (false, _) => {}
        }
    }
}

/// Refuses to leave a backend with too few usable servers.
fn mind_guard(guard: MinAvailable, pass: &Pass<'_>, instance: &mut Instance<'_>) {
    for (id, error) in instance.refused_by(guard, pass.goals) {
        let mut of_backend = instance.targets.iter_mut().filter(|target| target.before.backend_id == id).peekable();
        if of_backend.peek().is_some() {
            of_backend.for_each(|target| target.fail(error.clone()));
        } else {
            // If no server of the backend matched, it is short because its servers track one that did.
            instance.error.get_or_insert(error);
        }
    }
}

//! The stories by name and in order, and what goes from one to the next: the stage, the way in from
//! outside, the pods as they were before the mesh, and the connection opened then.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, Door, FRONT, Pod, Verdict};
use e2e::held::Held;
use e2e::mesh::{self, Connections};
use e2e::story::{policy, routing, waypoint};
use e2e::{Control, Stage, node, story};

use crate::{control_plane, faults, pages, proxy_status, wasm_plugin, waypoint_faults, waypoints};

/// One story.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Play) -> Result<()>,
    /// Whether later stories build upon what it does.
    pub(crate) changes_the_stage: bool,
    /// The control planes that it is told under.
    pub(crate) under: &'static [Control],
}

/// Every story, in order.
pub(crate) const CASES: &[Case] = &[
    step("s1_outside_the_mesh_everyone_is_served_in_plain_text", s1),
    Case {
        changes_the_stage: true,
        ..of_our_own(
            "the_root_begins_to_be_replaced_while_the_stories_go_on",
            control_plane::rotate,
        )
    },
    step(
        "s2_one_label_same_answers_no_restart_only_tls_between_nodes",
        s2,
    ),
    look(
        "a_connection_opened_before_labelling_goes_on_byte_for_byte",
        old_connection_goes_on,
    ),
    look(
        "a_connection_opened_after_labelling_is_captured",
        new_connection_is_captured,
    ),
    look("pods_on_the_same_node_are_under_mutual_tls_too", same_node),
    step(
        "s3_only_callers_that_the_policy_names_are_served_and_the_log_names_it",
        s3,
    ),
    look(
        "a_policy_closes_the_open_connections_that_it_denies",
        faults::policy_closes,
    ),
    step(
        "the_control_plane_stopped_traffic_goes_on_started_changes_apply",
        faults::control_stopped,
    ),
    look(
        "ztunnel_killed_under_load_lets_nothing_out_in_plain_text",
        faults::ztunnel_killed,
    ),
    step(
        "s4_a_waypoint_for_the_namespace_takes_its_traffic",
        waypoints::s4_namespace,
    ),
    look(
        "s16_the_control_plane_drives_the_waypoint_which_acknowledges",
        waypoints::s16,
    ),
    of_our_own(
        "istioctl_proxy_status_shows_every_proxy_and_compares_a_waypoints_own_dump",
        proxy_status::told,
    ),
    look(
        "s5_methods_are_allowed_and_denied_at_the_waypoint",
        |play| policy::s5(&play.stage),
    ),
    look("l4_policy_at_the_destination_sees_the_waypoint", |play| {
        policy::sees_the_waypoint(&play.stage)
    }),
    look("s6_ninety_and_ten_of_a_thousand", |play| {
        routing::s6(&play.stage)
    }),
    look("s10_jason_sees_another_version", |play| {
        routing::s10(&play.stage)
    }),
    look("s17_all_in_their_first_version", |play| {
        routing::s17(&play.stage)
    }),
    look("s15_ten_thousand_requests_while_rules_change", |play| {
        routing::s15(&play.stage)
    }),
    look(
        "an_http_route_at_a_service_chooses_splits_and_says_so",
        |play| routing::http_route(&play.stage),
    ),
    look(
        "a_wrong_rule_is_refused_with_its_reason_and_the_last_good_one_stays",
        |play| routing::wrong_rule(&play.stage),
    ),
    look(
        "a_waypoint_goes_on_without_its_control_plane",
        waypoint_faults::control_stopped,
    ),
    look(
        "a_waypoint_scaled_up_and_down_under_load_fails_no_request",
        waypoint_faults::scaled,
    ),
    look(
        "a_waypoint_rolled_under_load_fails_no_request",
        waypoint_faults::rolled,
    ),
    look(
        "a_waypoint_killed_fails_only_its_requests_in_flight",
        waypoint_faults::killed,
    ),
    look(
        "pods_of_the_destination_deleted_under_load_fail_no_request",
        waypoint_faults::destination_deleted,
    ),
    Case {
        // Ours does not translate WasmPlugin.
        under: &[Control::Istiod],
        ..look(
            "a_wasm_plugin_is_fetched_followed_and_taken_away_without_a_failed_request",
            wasm_plugin::told,
        )
    },
    of_our_own(
        "the_leading_replica_killed_under_load_loses_no_call_and_no_change",
        control_plane::leader_killed,
    ),
    of_our_own(
        "the_webhook_refuses_a_wrong_object_when_it_is_applied",
        control_plane::webhook,
    ),
    of_our_own("the_old_root_is_trusted_no_longer", control_plane::rotated),
    step(
        "without_the_waypoint_calls_go_directly_again",
        waypoints::removed,
    ),
    look("s4_waypoints_for_a_service_and_for_a_workload", |play| {
        waypoint::s4_service_and_workload(&play.stage)
    }),
    // istiod has given this form up.
    of_our_own(
        "s4_s5_a_waypoint_for_a_service_account_as_in_istio_1_18",
        |play| waypoint::s4_account(&play.stage),
    ),
    look(
        "a_waypoint_of_another_namespace_takes_the_traffic_of_this_one",
        |play| waypoint::of_another_namespace(&play.stage),
    ),
    look(
        "istioctl_generates_lists_tells_of_and_deletes_waypoints",
        |play| waypoint::istioctl(&play.stage),
    ),
    look(
        "a_waypoint_is_autoscaled_and_guarded_where_its_gateway_asks",
        |play| waypoint::autoscaled(&play.stage),
    ),
    look(
        "the_annotation_chooses_a_waypoints_image",
        waypoints::image_by_annotation,
    ),
    step(
        "unlabelling_restarts_nothing_and_breaks_no_open_connection",
        leave,
    ),
    look("the_pages_of_the_stories_do_what_they_say", pages::all),
    look(
        "removing_the_chart_leaves_nothing_behind_on_any_node",
        remove,
    ),
];

const fn step(name: &'static str, run: fn(&mut Play) -> Result<()>) -> Case {
    Case {
        name,
        run,
        changes_the_stage: true,
        under: &Control::ALL,
    }
}

const fn look(name: &'static str, run: fn(&mut Play) -> Result<()>) -> Case {
    Case {
        name,
        run,
        changes_the_stage: false,
        under: &Control::ALL,
    }
}

/// A look that is told under our own control plane alone.
const fn of_our_own(name: &'static str, run: fn(&mut Play) -> Result<()>) -> Case {
    Case {
        under: &[Control::Culvert],
        ..look(name, run)
    }
}

/// What goes from one story to the next.
pub(crate) struct Play {
    pub(crate) stage: Stage,
    pub(crate) door: Door,
    pub(crate) before: Vec<Pod>,
    held: Option<Held>,
    /// The root that is being replaced, once a rotation was begun.
    pub(crate) root: Option<String>,
}

impl Play {
    pub(crate) fn begin(stage: Stage) -> Result<Self> {
        let door = Door::open(&stage)?;
        let mut before = bookstore::pods(&stage)?;
        // On a cluster that is played on again a waypoint may be there, which a story takes away.
        before.retain(|pod| !pod.app.is_empty());
        Ok(Self {
            stage,
            door,
            before,
            held: None,
            root: None,
        })
    }

    fn held(&mut self) -> Result<&mut Held> {
        self.held
            .as_mut()
            .context("no connection was opened before labelling")
    }
}

fn s1(play: &mut Play) -> Result<()> {
    story::s1(&play.stage, &play.door)?;
    let mut held = Held::open(
        &play.stage,
        "sleep",
        "echo-right:9000",
        "from-before-the-label",
    )?;
    held.goes_on(3)?;
    play.held = Some(held);
    play.before = bookstore::pods(&play.stage)?;
    Ok(())
}

fn s2(play: &mut Play) -> Result<()> {
    story::s2(&play.stage, &play.door, &play.before)
}

fn old_connection_goes_on(play: &mut Play) -> Result<()> {
    play.held()?.goes_on(10)
}

fn new_connection_is_captured(play: &mut Play) -> Result<()> {
    let before = Connections::now(&play.stage)?;
    let mut held = Held::open(
        &play.stage,
        "sleep",
        "echo-right:9000",
        "from-after-the-label",
    )?;
    held.goes_on(3)?;
    let opened = Connections::now(&play.stage)?.since(&before);
    let ours = opened.of("source", "sleep").of("destination", "echo-right");
    ensure!(
        ours.of("policy", "mutual_tls")
            .of("reporter", "source")
            .total()
            == 1
            && ours
                .of("policy", "mutual_tls")
                .of("reporter", "destination")
                .total()
                == 1,
        "it was not opened under mutual TLS, once on each side: {}",
        opened.told()
    );
    held.finish().map(drop)
}

fn same_node(play: &mut Play) -> Result<()> {
    story::same_node(&play.stage)
}

fn s3(play: &mut Play) -> Result<()> {
    story::s3(&play.stage, &play.door)
}

/// Kubelet's probes went on all the while: a pod whose probes had failed would be unready or restarted.
fn leave(play: &mut Play) -> Result<()> {
    bookstore::nothing_restarted(&play.before, &bookstore::pods(&play.stage)?)
        .context("while in the mesh")?;
    let mut inside = Held::open(&play.stage, "notsleep", "echo-left:9000", "from-inside")?;
    inside.goes_on(3)?;
    mesh::let_go(&play.stage)?;
    story::everyone_is_served(&play.stage, &play.door)?;
    inside
        .goes_on(10)
        .context("the connection opened inside the mesh")?;
    play.held()?
        .goes_on(10)
        .context("the connection opened before the mesh")?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(&play.stage)?)?;
    let marker = story::marker();
    if let Some(seen) = story::pages_under_capture(&play.stage, &marker)? {
        ensure!(
            seen.marked > 0,
            "new connections are still captured: {seen}"
        );
    }
    inside
        .finish()
        .context("the connection opened inside the mesh")?;
    play.held
        .take()
        .context("no connection from before")?
        .finish()?;
    Ok(())
}

fn remove(play: &mut Play) -> Result<()> {
    let cluster = play
        .stage
        .made()
        .context("the nodes of this cluster can't be looked into")?;
    mesh::enrol(&play.stage)?;
    for node in cluster.nodes() {
        ensure!(
            !node::pins(node)?.is_empty(),
            "nothing is pinned on {}: this proves nothing",
            node.name
        );
    }
    play.stage.uninstall()?;
    for node in cluster.nodes() {
        e2e::until::until(
            &format!("{} without a trace", node.name),
            Duration::from_secs(60),
            || node::is_clean(node),
        )?;
    }
    let verdict = bookstore::ask(&play.stage, "notsleep", FRONT)?;
    ensure!(verdict == Verdict::Title, "without the mesh: {verdict}");
    bookstore::nothing_restarted(&play.before, &bookstore::pods(&play.stage)?)
}

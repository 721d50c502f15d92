(* SPDX-License-Identifier: GPL-2.0-only *)

(** * Each rule is needed: without it a bad state can be reached

   So the theorems of [Proofs.v] are not empty, and the geometry that they ask for exists. Two
   addresses, a top table with one item, and tables of two items below it. *)

From Coq Require Import Arith Bool Lia ZArith ZifyNat.
From IoPte Require Import Protocol.
Arguments Nat.div : simpl never.
Arguments Nat.modulo : simpl never.
Ltac Zify.zify_post_hook ::= Z.to_euclidean_division_equations.

Definition tiny_serves (s v : nat) := if s =? 0 then v < 2 else v = (s + 1) mod 2.

Definition tiny : geometry.
Proof.
  refine {| root := 0; tab s := (s + 1) / 2; up _ := 0; depth t := match t with 0 => 0 | _ => 1 end; serves := tiny_serves;
    home l s := l = s; tr _ v := v; spec v := v |}; unfold tiny_serves; cbn -[Nat.div Nat.modulo Nat.mul Nat.sub]; intros.
  - destruct t; lia.
  - destruct t; [congruence|]. reflexivity.
  - destruct (s =? 0) eqn:E; [apply Nat.eqb_eq in E; subst; destruct H; reflexivity|lia].
  - exists (2 * t - 1 + v). destruct (2 * t - 1 + v =? 0) eqn:E; [apply Nat.eqb_eq in E; lia|]. split; lia.
  - destruct (s =? 0) eqn:E, (s' =? 0) eqn:F; rewrite ?Nat.eqb_eq, ?Nat.eqb_neq in *; subst; lia.
  - destruct (s =? 0); [exists 0; lia|eauto].
  - congruence.
Defined.

(** The top item is a leaf for both addresses; table 1, with a leaf for each, is built and not linked. *)
Definition x0 : state := {|
  what s := match s with 0 => Leaf 0 | 1 => Leaf 1 | 2 => Leaf 2 | _ => Empty end;
  dirty _ := false;
  stat t := match t with 0 => Live | _ => Fresh end;
  splits _ := No; cache _ := False; wrote _ := False; mapped v := v < 2; hole _ := False; cleared _ := False |}.

Lemma cov_0 v : cov tiny 0 v <-> v < 2.
Proof. split; [intros (s & <- & H); exact H|intros H; exists 0; split; [reflexivity|exact H]]. Qed.
Lemma cov_1 v : cov tiny 1 v <-> v = 0.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 1; split; reflexivity]. Qed.
Lemma cov_2 v : cov tiny 2 v <-> v = 1.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 2; split; reflexivity]. Qed.
Lemma tab_0 s : (s + 1) / 2 = 0 -> s = 0.
Proof. lia. Qed.
Lemma tab_1 s : (s + 1) / 2 = 1 -> s = 1 \/ s = 2.
Proof. lia. Qed.

Lemma x0_initial : initial tiny x0.
Proof.
  constructor; cbn; intros; auto.
  - destruct t; [congruence|discriminate].
  - destruct t; auto.
  - assert (s = 0) as -> by (apply tab_0; destruct ((s + 1) / 2); auto; discriminate).
    repeat split; auto. intros s <-. reflexivity.
Qed.

Definition one (t : nat) := t =? 1.

Lemma x0_built x : (forall s, s < 3 -> what x s = what x0 s) -> stat x 1 = Fresh -> (forall l, splits x l = No) ->
  (forall l, ~ cleared x l) -> built tiny x one 1 0.
Proof.
  intros W S P C. constructor; unfold one.
  - intros u E. apply Nat.eqb_eq in E. subst. auto.
  - intros u E. apply Nat.eqb_eq in E. subst. cbn. auto.
  - intros s E. apply Nat.eqb_eq in E. cbn in E. apply tab_1 in E.
    destruct E as [-> | ->]; rewrite W by lia; cbn; repeat split; auto; try (intros s <-; rewrite W by lia; reflexivity);
      apply cov_0; [apply cov_1 in H|apply cov_2 in H]; lia.
Qed.

Definition without_flush_old := {| flush_old := false; fold := true; compare := true; build_first := true; flush_table := true |}.
Definition without_fold := {| flush_old := true; fold := false; compare := true; build_first := true; flush_table := true |}.
Definition without_compare := {| flush_old := true; fold := true; compare := false; build_first := true; flush_table := true |}.
Definition without_build_first := {| flush_old := true; fold := true; compare := true; build_first := false; flush_table := true |}.
Definition without_flush_table := {| flush_old := true; fold := true; compare := true; build_first := true; flush_table := false |}.

(** The stores of the tests below. *)
Definition walked := with_held (with_held x0 (Walk 0 0)) (Trans 0 0 false).
Definition divided x := with_split (with_stat (with_item x 0 (Tab 1) false) (fun u => if one u then Live else stat x u)) 0 (Open false).
(** Whatever a flush may leave. *)
Definition left x (R : nat -> Prop) h := cache x h /\ match h with Walk v _ => ~ R v | Trans l _ _ => ~ forall v, cov tiny l v -> R v end.
Definition flushed x := with_split (with_cache x (left x (cov tiny 0))) 0 (Flushed false).
Definition ended x := with_split x 0 No.

Lemma left_flushes x R : flushes tiny R (cache x) (left x R).
Proof. constructor; unfold left; intros; tauto. Qed.

Lemma x0_walked r : reachable tiny r x0 walked.
Proof.
  apply Then with (with_held x0 (Walk 0 0)); [apply Then with x0; [apply Here|]|].
  - apply HwStart. exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
  - eapply HwFill with (v := 0) (t := 0); cbn; auto.
Qed.

Lemma divide r x : what x 0 = Leaf 0 -> (compare r = true -> dirty x 0 = false) -> stat x 0 = Live -> (forall l, splits x l = No) ->
  (forall l, ~ cleared x l) -> (forall v, v < 2 -> mapped x v) -> (build_first r = true -> built tiny x one 1 0) ->
  step tiny r x (divided x).
Proof.
  intros W D S P C M B. eapply (Subdivide tiny r x 0 0 false false 1 one); unfold ask; auto.
  repeat split; cbn; auto. intros v H. apply M, cov_0, H.
Qed.

Lemma flush r x : splits x 0 = Open false -> what x 0 <> Leaf 0 -> step tiny r x (flushed x).
Proof. intros P W. apply FlushOld; auto; [intros s <-; auto|apply left_flushes]. Qed.

(** Without the flush of the old leaf it is used after its middle was unmapped. *)
Theorem flush_old_is_needed : exists x, reachable tiny without_flush_old x0 x /\
  exists l s d v, cache x (Trans l s d) /\ cov tiny l v /\ hole x v.
Proof.
  pose (x3 := ended (divided walked)). pose (R := fun v => v = 0).
  pose (x4 := with_ranges x3 (fun v => mapped x3 v /\ ~ R v) (hole x3)).
  pose (x5 := with_cleared (with_item x4 1 Empty false) 1).
  pose (x6 := with_ranges (with_cache x5 (left x5 R)) (mapped x5) (fun v => hole x5 v \/ R v)).
  exists x6. split.
  - apply Then with x5; [apply Then with x4; [apply Then with x3; [apply Then with (divided walked);
      [apply Then with walked; [apply x0_walked|]|]|]|]|].
    + apply divide; cbn; auto. intros _. apply x0_built; cbn; auto.
    + apply (FoldEnd tiny without_flush_old _ 0 false); cbn.
      * split; [discriminate|]. intros s <-. discriminate.
      * intros _ [H|(s & <- & H)]; discriminate.
      * intros s l <-. discriminate.
    + apply Forget. cbn. intros l v H. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply (Clear tiny without_flush_old x4 1 1); cbn; auto. intros v H [_ N]. apply cov_1 in H. auto.
    + apply FlushHole.
      * apply left_flushes.
      * cbn. intros v -> [_ N]. apply N. reflexivity.
      * intros s l v _ W C ->. destruct C as (s1 & <- & C). cbn in W, C. unfold set in W.
        destruct (Nat.eq_dec s 1); [discriminate|]. destruct (Nat.eq_dec s 0); [discriminate|].
        destruct s as [|[|[|s]]]; try congruence. injection W as <-. discriminate C.
      * intros l v [[]| ->] C _ u Cu. apply cov_1 in Cu. exact Cu.
  - exists 0, 0, false, 0. split; [|split; [apply cov_0; lia|right; reflexivity]].
    unfold x6, left. cbn. split; [auto|]. intros N. assert (1 = 0) by (apply N, cov_0; lia). discriminate.
Qed.

Definition lost x := wrote x 0 /\ mapped x 0 /\ (forall l, splits x l = No) /\
  exists s l, stat x (tab tiny s) = Live /\ serves tiny s 0 /\ what x s = Leaf l /\ ~ marked tiny x l.

(** Without the fold a write through a translation of the old leaf is forgotten. *)
Theorem fold_is_needed : exists x, reachable tiny without_fold x0 x /\ lost x.
Proof.
  pose (x3 := with_held (with_wrote (with_dirty (divided walked) 0 true) 0) (Trans 0 0 true)).
  exists (ended (flushed x3)). split.
  - apply Then with (flushed x3); [apply Then with x3; [apply Then with (divided walked); [apply Then with walked;
      [apply x0_walked|]|]|]|].
    + apply divide; cbn; auto. intros _. apply x0_built; cbn; auto.
    + eapply HwBlind with (d := false); [cbn; auto|]. apply cov_0. lia.
    + apply flush; cbn; auto. discriminate.
    + apply (FoldEnd tiny without_fold _ 0 false); cbn; auto; [discriminate|]. intros s l <-. discriminate.
  - repeat split; cbn; auto; [intros l; unfold set; destruct (Nat.eq_dec l 0); auto|].
    exists 1, 1. repeat split; cbn; auto. intros (s & <- & _ & H). discriminate.
Qed.

(** Without the compare a D that hardware sets just before the store is overwritten. *)
Theorem compare_is_needed : exists x, reachable tiny without_compare x0 x /\ lost x.
Proof.
  pose (x2 := with_held (with_wrote (with_dirty walked 0 true) 0) (Trans 0 0 true)).
  exists (ended (flushed (divided x2))). split.
  - apply Then with (flushed (divided x2)); [apply Then with (divided x2); [apply Then with x2; [apply Then with walked;
      [apply x0_walked|]|]|]|].
    + eapply HwCompare with (d := false); [cbn; auto| |reflexivity]. apply cov_0. lia.
    + apply divide; cbn; auto. intros _. apply x0_built; cbn; auto.
    + apply flush; cbn; auto. discriminate.
    + apply (FoldEnd tiny without_compare _ 0 false); cbn; auto.
      * intros _ [H|(s & <- & H)]; discriminate.
      * intros s l <-. discriminate.
  - repeat split; cbn; auto; [intros l; unfold set; destruct (Nat.eq_dec l 0); auto|].
    exists 1, 1. repeat split; cbn; auto. intros (s & <- & _ & H). discriminate.
Qed.

(** Published before it is complete, a walk of a mapped address ends in nothing. *)
Theorem build_first_is_needed : exists x, reachable tiny without_build_first x0 x /\
  exists v t s, cache x (Walk v t) /\ mapped x v /\ tab tiny s = t /\ serves tiny s v /\ what x s = Empty.
Proof.
  pose (x1 := with_item x0 1 Empty false). pose (x3 := with_held (divided x1) (Walk 0 0)).
  exists (with_held x3 (Walk 0 1)). split.
  - apply Then with x3; [apply Then with (divided x1); [apply Then with x1; [apply Then with x0; [apply Here|]|]|]|].
    + apply Init. reflexivity.
    + apply divide; cbn; auto. discriminate.
    + apply HwStart. exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
    + eapply HwDown with (t := 0) (s := 0); cbn; auto.
  - exists 0, 1, 1. cbn. auto 10.
Qed.

(** A table that is freed without a flush is still walked. *)
Theorem flush_table_is_needed : exists x, reachable tiny without_flush_table x0 x /\
  exists v t, cache x (Walk v t) /\ stat x t = Freed.
Proof.
  pose (x3 := ended (flushed (divided x0))).
  pose (x5 := with_held (with_held x3 (Walk 0 0)) (Walk 0 1)).
  pose (R := fun v => v < 2). pose (x6 := with_ranges x5 (fun v => mapped x5 v /\ ~ R v) (hole x5)).
  pose (x7 := with_cleared (with_item x6 1 Empty false) 1). pose (x8 := with_cleared (with_item x7 2 Empty false) 2).
  pose (x9 := with_stat (with_item x8 0 Empty false) (set (stat x8) 1 Gone)).
  exists (with_stat x9 (set (stat x9) 1 Freed)). split.
  - apply Then with x9; [apply Then with x8; [apply Then with x7; [apply Then with x6; [apply Then with x5;
      [apply Then with (with_held x3 (Walk 0 0)); [apply Then with x3; [apply Then with (flushed (divided x0));
      [apply Then with (divided x0); [apply Then with x0; [apply Here|]|]|]|]|]|]|]|]|]|].
    + apply divide; cbn; auto. intros _. apply x0_built; cbn; auto.
    + apply flush; cbn; auto. discriminate.
    + apply (FoldEnd tiny without_flush_table _ 0 false); cbn; auto.
      * intros _ [H|(s & <- & H)]; discriminate.
      * intros s l <-. discriminate.
    + apply HwStart. exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
    + eapply HwDown with (t := 0) (s := 0); cbn; auto.
    + apply Forget. cbn. intros l v H. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply (Clear tiny without_flush_table x6 1 1); cbn; auto. intros v H [_ N]. apply cov_1 in H. apply N. red. lia.
    + apply (Clear tiny without_flush_table x7 2 2); cbn; auto. intros v H [_ N]. apply cov_2 in H. apply N. red. lia.
    + apply (Unlink tiny without_flush_table x8 0 1); cbn; auto.
      * intros s H. apply tab_1 in H. destruct H as [-> | ->]; reflexivity.
      * intros v (s & H & S) [M N]. auto.
      * intros l H. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply Free. cbn. auto.
  - exists 0, 1. cbn. auto.
Qed.

Print Assumptions flush_old_is_needed.
Print Assumptions fold_is_needed.
Print Assumptions compare_is_needed.
Print Assumptions build_first_is_needed.
Print Assumptions flush_table_is_needed.

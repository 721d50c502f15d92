(* SPDX-License-Identifier: GPL-2.0-only *)

(** * Each rule is needed: without it a bad state can be reached

   So the theorems of [Proofs.v] are not empty, and the geometry that they ask for exists. Two
   addresses, a top table with one item, and tables of two items below it. An item has a leaf with its
   own number, but for 7, which goes elsewhere, and 8, which takes two items. *)

From Coq Require Import Arith Bool Lia ZArith ZifyNat.
From IoPte Require Import Protocol.
Arguments Nat.div : simpl never.
Arguments Nat.modulo : simpl never.
Ltac Zify.zify_post_hook ::= Z.to_euclidean_division_equations.

Definition tiny_serves (s v : nat) := if s =? 0 then v < 2 else v = (s + 1) mod 2.

Definition tiny_home (l s : nat) := if l =? 7 then s = 0 else if l =? 8 then s = 1 \/ s = 2 else l = s.

Definition tiny : geometry.
Proof.
  refine {| root := 0; tab s := (s + 1) / 2; up _ := 0; depth t := match t with 0 => 0 | _ => 1 end; serves := tiny_serves;
    home := tiny_home; tr l v := if l =? 7 then S v else v; spec v := v |};
    unfold tiny_serves, tiny_home; cbn -[Nat.div Nat.modulo Nat.mul Nat.sub]; intros.
  - destruct t; lia.
  - destruct t; [congruence|]. reflexivity.
  - destruct (s =? 0) eqn:E; [apply Nat.eqb_eq in E; subst; destruct H; reflexivity|lia].
  - exists (2 * t - 1 + v). destruct (2 * t - 1 + v =? 0) eqn:E; [apply Nat.eqb_eq in E; lia|]. split; lia.
  - destruct (s =? 0) eqn:E, (s' =? 0) eqn:F; rewrite ?Nat.eqb_eq, ?Nat.eqb_neq in *; subst; lia.
  - destruct (s =? 0); [exists 0; lia|eauto].
  - destruct (l =? 7), (l =? 8); lia.
Defined.

(** The top item is a leaf for both addresses; table 1, with a leaf for each, is built and not linked. *)
Definition x0 : state := {|
  what s := match s with 0 => Leaf 0 | 1 => Leaf 1 | 2 => Leaf 2 | _ => Empty end;
  dirty _ := false;
  stat t := match t with 0 => Live | _ => Fresh end;
  splits _ := No; joins _ := false; cache _ := False; wrote _ := False; mapped v := v < 2; hole _ := False; cleared _ := False |}.

Lemma cov_0 v : cov tiny 0 v <-> v < 2.
Proof. split; [intros (s & <- & H); exact H|intros H; exists 0; split; [reflexivity|exact H]]. Qed.
Lemma cov_1 v : cov tiny 1 v <-> v = 0.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 1; split; reflexivity]. Qed.
Lemma cov_2 v : cov tiny 2 v <-> v = 1.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 2; split; reflexivity]. Qed.
Lemma cov_8 v : cov tiny 8 v <-> v < 2.
Proof.
  split; [intros (s & [-> | ->] & H); cbn in H; lia|].
  intros H. destruct v as [|[|v]]; [exists 1|exists 2|lia]; split; cbn; auto.
Qed.
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

(** All rules but one. *)
Definition without (n : nat) := {|
  flush_old := negb (n =? 0); fold := negb (n =? 1); compare := negb (n =? 2);
  build_first := negb (n =? 3); flush_table := negb (n =? 4); join_same := negb (n =? 5);
  compare_up := negb (n =? 6); join_whole := negb (n =? 7); flush_joined := negb (n =? 8);
  carry := negb (n =? 9) |}.
Definition without_flush_old := without 0.
Definition without_fold := without 1.
Definition without_compare := without 2.
Definition without_build_first := without 3.
Definition without_flush_table := without 4.
Definition without_join_same := without 5.
Definition without_compare_up := without 6.
Definition without_join_whole := without 7.
Definition without_flush_joined := without 8.
Definition without_carry := without 9.

(** The stores of the tests below. *)
Definition walked := with_held (with_held x0 (Walk 0 0)) (Trans 0 0 false).
Definition divided x :=
  with_split (with_stat (with_item x 0 (Tab 1) false) (fun u => if one u then Live else stat x u)) 0 (Open false).
(** Whatever a flush may leave. *)
Definition left x (R : nat -> Prop) h := cache x h /\
  match h with Walk v _ => ~ R v | Trans l _ _ => ~ forall v, cov tiny l v -> R v end.
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

Lemma divide r x : what x 0 = Leaf 0 -> (compare r = true -> dirty x 0 = false) -> stat x 0 = Live ->
  (forall l, splits x l = No) -> (forall l, joins x l = false) -> (forall l, ~ cleared x l) -> (forall v, v < 2 -> mapped x v) ->
  (build_first r = true -> built tiny x one 1 0) ->
  step tiny r x (divided x).
Proof.
  intros W D S P J C M B. eapply (Subdivide tiny r x 0 0 false false 1 one); unfold ask; auto.
  split; [|split; [|split; [|split; [|split]]]]; cbn; auto.
  - intros v H. apply M, cov_0, H.
  - intros l H. rewrite P in H. destruct H; auto.
  - intros l H. rewrite J in H. discriminate.
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
    + apply Forget. cbn. intros l v [H|H]; [|discriminate]. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply (Clear tiny without_flush_old x4 1 1); cbn; auto. intros v H [_ N]. apply cov_1 in H. auto.
    + apply FlushHole.
      * apply left_flushes.
      * cbn. intros v -> [_ N]. apply N. reflexivity.
      * intros s l v _ W C ->. cbn in W. unfold set in W.
        destruct (Nat.eq_dec s 1); [discriminate|]. destruct (Nat.eq_dec s 0); [discriminate|].
        destruct s as [|[|[|s]]]; try congruence. injection W as <-. apply cov_2 in C. discriminate C.
      * intros l v [[]| ->] C _ u Cu. apply cov_1 in Cu. exact Cu.
  - exists 0, 0, false, 0. split; [|split; [apply cov_0; lia|right; reflexivity]].
    unfold x6, left. cbn. split; [auto|]. intros N. assert (1 = 0) by (apply N, cov_0; lia). discriminate.
Qed.

(** A write that shows nowhere, and nothing is under way. *)
Definition lost x := exists v s l, wrote x v /\ mapped x v /\ quiet x /\
  stat x (tab tiny s) = Live /\ serves tiny s v /\ what x s = Leaf l /\ ~ marked tiny x l.

(** Nothing is under way: for splits and joins of leaf 0 and 8, and tables 0 and 1. *)
Ltac calm := split; [|split]; cbn; [intros l|intros l|intros [|[|t]]]; unfold set;
  repeat match goal with |- context[Nat.eq_dec ?a ?b] => destruct (Nat.eq_dec a b) end; try split; auto; discriminate.

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
  - exists 0, 1, 1. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & <- & _ & H). discriminate.
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
  - exists 0, 1, 1. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & <- & _ & H). discriminate.
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
    + apply Forget. cbn. intros l v [H|H]; [|discriminate]. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply (Clear tiny without_flush_table x6 1 1); cbn; auto. intros v H [_ N]. apply cov_1 in H. apply N. red. lia.
    + apply (Clear tiny without_flush_table x7 2 2); cbn; auto. intros v H [_ N]. apply cov_2 in H. apply N. red. lia.
    + apply (Unlink tiny without_flush_table x8 0 1); cbn; auto.
      * intros s H. apply tab_1 in H. destruct H as [-> | ->]; reflexivity.
      * intros v (s & H & S) [M N]. auto.
      * intros l H. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
    + apply Free. cbn. auto.
  - exists 0, 1. cbn. auto.
Qed.

(** ** A join

   The top item leads to table 1, which has a leaf for each address. *)
Definition y0 : state := {|
  what s := match s with 0 => Tab 1 | 1 => Leaf 1 | 2 => Leaf 2 | _ => Empty end;
  dirty _ := false;
  stat t := match t with 0 => Live | 1 => Live | _ => Fresh end;
  splits _ := No; joins _ := false; cache _ := False; wrote _ := False; mapped v := v < 2; hole _ := False; cleared _ := False |}.

Lemma y0_initial : initial tiny y0.
Proof.
  constructor; cbn; intros; auto.
  - destruct t as [|[|t]]; cbn in *; try congruence. auto.
  - destruct t as [|[|t]]; auto.
  - assert (s = 0 \/ s = 1 \/ s = 2) as [-> | [-> | ->]].
    { destruct ((s + 1) / 2) as [|[|t]] eqn:E; [apply tab_0 in E; lia|apply tab_1 in E; lia|discriminate]. }
    + auto.
    + repeat split; auto. intros s <-. reflexivity.
    + repeat split; auto. intros s <-. reflexivity.
Qed.

(** The stores: the top item becomes a leaf, an item of table 1 becomes one of leaf 8; and the ends. *)
Definition joined x l := with_join (with_stat (with_item x 0 (Leaf l) false) (fun u => if one u then Old else stat x u)) l true.
Definition promoted x s d := with_join (with_item x s (Leaf 8) d) 8 true.
Definition all_in x l := with_join x l false.
Definition flushed_old x := with_stat (with_cache x (left x (dom tiny 1))) (set (stat x) 1 Kept).
Definition carried x := with_stat x (set (stat x) 1 Safe).
Definition freed x := with_stat x (set (stat x) 1 Freed).
(** A walk for [v] has got to table 1, and has read its leaf. *)
Definition walks x v := with_held (with_held x (Walk v 0)) (Walk v 1).
Definition reads x v := with_held (walks x v) (Trans (S v) (S v) false).
(** A device writes through that. *)
Definition writes x v l := with_held (with_wrote (with_dirty x (S v) true) v) (Trans l (S v) true).

Lemma cov_S v : v < 2 -> cov tiny (S v) v.
Proof. intros H. destruct v as [|[|v]]; [apply cov_1|apply cov_2|]; lia. Qed.

Lemma serves_S v : v < 2 -> (S v + 1) / 2 = 1 /\ tiny_serves (S v) v.
Proof. intros H. destruct v as [|[|v]]; [split; reflexivity|split; reflexivity|lia]. Qed.

Lemma walk_down r x v z : reachable tiny r z x -> v < 2 -> what x 0 = Tab 1 -> reachable tiny r z (walks x v).
Proof.
  intros R H W. apply Then with (with_held x (Walk v 0)); [apply Then with x; [exact R|]|].
  - apply HwStart. exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
  - eapply HwDown with (t := 0) (s := 0); cbn; auto.
Qed.

Lemma read_leaf r x v z : reachable tiny r z x -> v < 2 -> what x 0 = Tab 1 ->
  what x (S v) = Leaf (S v) -> dirty x (S v) = false ->
  reachable tiny r z (reads x v).
Proof.
  intros R H W L D. eapply Then; [apply walk_down; eauto|]. unfold reads. destruct (serves_S v H) as [E Sv].
  replace false with (dirty (walks x v) (S v)) by exact D. apply (HwFill tiny r (walks x v) v 1); auto. cbn. auto.
Qed.

Lemma y0_agree x l : (forall s, s = 1 \/ s = 2 -> what x s = Leaf s \/ what x s = Leaf 8) -> stat x 1 = Live -> l <> 7 ->
  (forall v, cov tiny l v -> v < 2) -> agree tiny x l.
Proof.
  intros W L N C v Cv. assert (v < 2) as H by auto. destruct (serves_S v H) as [E Sv].
  destruct (W (S v)) as [K|K]; [lia| |].
  - exists (S v), (S v). split; [change (stat x ((S v + 1) / 2) = Live); rewrite E; exact L|split; [exact Sv|split; [exact K|]]].
    cbn. destruct l as [|[|[|[|[|[|[|[|l]]]]]]]]; try congruence; destruct v as [|[|v]]; auto; lia.
  - exists (S v), 8. split; [change (stat x ((S v + 1) / 2) = Live); rewrite E; exact L|split; [exact Sv|split; [exact K|]]].
    cbn. destruct l as [|[|[|[|[|[|[|[|l]]]]]]]]; try congruence; auto.
Qed.

Lemma join r x l : what x 0 = Tab 1 -> (forall s, s = 1 \/ s = 2 -> what x s = Leaf s) -> stat x 0 = Live -> stat x 1 = Live ->
  (forall k, splits x k = No) -> (forall k, joins x k = false) -> (forall v, v < 2 -> mapped x v) -> l = 0 \/ l = 7 ->
  (join_same r = true -> l = 0) -> step tiny r x (joined x l).
Proof.
  intros W W1 L0 L1 P J M K A. assert (home tiny l 0) as Hl by (destruct K as [-> | ->]; reflexivity).
  apply (Join tiny r x 0 1 one l false); unfold ask; auto.
  - split; [auto|]. split; [|split].
    + intros v (s & H & S). apply M. assert (s = 0) as -> by (destruct K as [-> | ->]; cbn in H; auto). exact S.
    + intros k H. rewrite P in H. destruct H; auto.
    + intros k H. rewrite J in H. discriminate.
  - constructor; unfold one.
    + reflexivity.
    + intros u E. apply Nat.eqb_eq in E. subst. cbn. auto.
    + intros s u E H. apply Nat.eqb_eq in E. cbn in E. apply tab_1 in E. rewrite W1 in H by exact E. discriminate.
    + auto.
  - intros E. rewrite (A E). apply y0_agree; auto. intros v. apply cov_0.
Qed.

Lemma promote r x s l' d : s = 1 \/ s = 2 -> what x s = Leaf l' -> l' = s \/ l' = 8 ->
  (forall s, s = 1 \/ s = 2 -> what x s = Leaf s \/ what x s = Leaf 8) -> stat x 1 = Live ->
  (compare_up r = true -> dirty x s = d) -> (forall k, splits x k = No) -> (forall k, joins x k = true -> k = 8) ->
  (forall v, v < 2 -> mapped x v) -> step tiny r x (promoted x s d).
Proof.
  intros Hs W Hl W1 L1 C P J M. assert (tab tiny s = 1) as T by (destruct Hs as [-> | ->]; reflexivity).
  apply (Promote tiny r x s 8 l' d d); unfold ask; auto.
  - rewrite T. exact L1.
  - split; [exact Hs|]. split; [intros v H; apply M, cov_8, H|split].
    + intros k H. rewrite P in H. destruct H; auto.
    + auto.
  - intros s' H. destruct Hl as [-> | ->]; auto. destruct Hs as [-> | ->]; cbn in *; auto.
  - intros _. apply y0_agree; auto. intros v. apply cov_8.
Qed.

Ltac easy_ends := try (intros s [-> | ->]; auto; fail); try discriminate.

(** What a leaf takes the place of goes elsewhere: then so does a new translation. *)
Theorem join_same_is_needed : exists x, reachable tiny without_join_same y0 x /\
  exists l s d v, cache x (Trans l s d) /\ cov tiny l v /\ mapped x v /\ tr tiny l v <> spec tiny v.
Proof.
  exists (with_held (with_held (joined y0 7) (Walk 0 0)) (Trans 7 0 false)). split.
  - apply Then with (with_held (joined y0 7) (Walk 0 0)); [apply Then with (joined y0 7); [apply Then with y0; [apply Here|]|]|].
    + apply join; cbn; auto; easy_ends.
    + apply HwStart. exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
    + eapply HwFill with (v := 0) (t := 0); cbn; auto.
  - exists 7, 0, false, 0. cbn. repeat split; auto; try discriminate.
    exists 0. split; [reflexivity|]. cbn. unfold tiny_serves. cbn. lia.
Qed.

(** Without the compare a D that hardware sets in a small leaf just before the store is overwritten. *)
Theorem compare_up_is_needed : exists x, reachable tiny without_compare_up y0 x /\ lost x.
Proof.
  pose (x1 := writes (reads y0 0) 0 1). pose (x3 := promoted (promoted x1 1 false) 2 false). exists (all_in x3 8). split.
  - apply Then with x3; [apply Then with (promoted x1 1 false); [apply Then with x1; [apply Then with (reads y0 0);
      [apply read_leaf; cbn; auto; apply Here|]|]|]|].
    + apply (HwCompare tiny without_compare_up (reads y0 0) 0 1 1 false); cbn; auto. apply cov_1. reflexivity.
    + apply (promote _ _ 1 1); cbn; auto; easy_ends.
    + apply (promote _ _ 2 2); cbn; auto; easy_ends.
      intros k H. unfold set in H. destruct (Nat.eq_dec k 8); auto. discriminate.
    + apply JoinEnd; cbn; auto. intros _ s [-> | ->]; reflexivity.
  - exists 0, 1, 8. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & [-> | ->] & _ & H); discriminate.
Qed.

(** A join that ends early: a device that knows the leaf to be dirty writes where a small one still is. *)
Theorem join_whole_is_needed : exists x, reachable tiny without_join_whole y0 x /\ lost x.
Proof.
  pose (x1 := promoted (walks y0 0) 1 false). pose (x2 := with_held x1 (Trans 8 1 false)).
  pose (x3 := with_held (with_wrote (with_dirty x2 1 true) 1) (Trans 8 1 true)). exists (all_in x3 8). split.
  - apply Then with x3; [apply Then with x2; [apply Then with x1; [apply Then with (walks y0 0);
      [apply walk_down; cbn; auto; apply Here|]|]|]|].
    + apply (promote _ _ 1 1); cbn; auto; easy_ends.
    + apply (HwFill tiny without_join_whole x1 0 1 1 8); cbn; auto.
    + apply (HwCompare tiny without_join_whole x2 1 8 1 false); cbn; auto. apply cov_8. lia.
    + apply JoinEnd; cbn; auto. discriminate.
  - exists 1, 2, 2. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & <- & _ & H). discriminate.
Qed.

(** An old table that is freed without a flush is still walked. *)
Theorem flush_joined_is_needed : exists x, reachable tiny without_flush_joined y0 x /\
  exists v t, cache x (Walk v t) /\ stat x t = Freed.
Proof.
  pose (x1 := walks y0 0). pose (x2 := all_in (joined x1 0) 0). exists (freed (carried x2)). split.
  - apply Then with (carried x2); [apply Then with x2; [apply Then with (joined x1 0); [apply Then with x1;
      [apply walk_down; cbn; auto; apply Here|]|]|]|].
    + apply join; cbn; auto. intros s [-> | ->]; auto.
    + apply JoinEnd; cbn; auto. intros _ s <-. reflexivity.
    + apply Carry; cbn; auto. intros _ s l E W H. unfold set in H. destruct (Nat.eq_dec s 0); discriminate.
    + apply Free. cbn. auto.
  - exists 0, 1. cbn. auto.
Qed.

(** And D that is looked for before the flush is set later. *)
Theorem flush_joined_is_needed_for_dirty : exists x, reachable tiny without_flush_joined y0 x /\ lost x.
Proof.
  pose (x1 := reads y0 0). pose (x2 := all_in (joined x1 0) 0). exists (writes (carried x2) 0 1). split.
  - apply Then with (carried x2); [apply Then with x2; [apply Then with (joined x1 0); [apply Then with x1;
      [apply read_leaf; cbn; auto; apply Here|]|]|]|].
    + apply join; cbn; auto. intros s [-> | ->]; auto.
    + apply JoinEnd; cbn; auto. intros _ s <-. reflexivity.
    + apply Carry; cbn; auto. intros _ s l E W H. unfold set in H. destruct (Nat.eq_dec s 0); discriminate.
    + apply (HwBlind tiny without_flush_joined (carried x2) 0 1 1 false); cbn; auto. apply cov_1. reflexivity.
  - exists 0, 0, 0. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & <- & _ & H). discriminate.
Qed.

(** Without carrying, a D that was set in an old table before the flush is freed with it. *)
Theorem carry_is_needed : exists x, reachable tiny without_carry y0 x /\ lost x.
Proof.
  pose (x1 := reads y0 0). pose (x2 := joined x1 0). pose (x3 := all_in (writes x2 0 1) 0).
  exists (freed (carried (flushed_old x3))). split.
  - apply Then with (carried (flushed_old x3)); [apply Then with (flushed_old x3); [apply Then with x3;
      [apply Then with (writes x2 0 1); [apply Then with x2; [apply Then with x1; [apply read_leaf; cbn; auto; apply Here|]|]|]|]|]|].
    + apply join; cbn; auto. intros s [-> | ->]; auto.
    + apply (HwBlind tiny without_carry x2 0 1 1 false); cbn; auto. apply cov_1. reflexivity.
    + apply JoinEnd; cbn; auto. intros _ s <-. reflexivity.
    + apply FlushJoined; [reflexivity|discriminate|apply left_flushes].
    + apply Carry; cbn; auto. discriminate.
    + apply Free. cbn. auto.
  - exists 0, 0, 0. split; [cbn; auto|split; [cbn; auto|split; [calm|]]]. repeat split; cbn; auto.
    intros (s & <- & _ & H). discriminate.
Qed.

(** ** All of it

   With every rule: a leaf is split, its table is joined while a device writes through the old leaf of
   address 1, and freed; the new leaf is split again, and one half of it is unmapped. *)
Definition two (t : nat) := t =? 2.

Lemma tab_2 s : (s + 1) / 2 = 2 -> s = 3 \/ s = 4.
Proof. lia. Qed.
Lemma cov_3 v : cov tiny 3 v <-> v = 0.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 3; split; reflexivity]. Qed.
Lemma cov_4 v : cov tiny 4 v <-> v = 1.
Proof. split; [intros (s & <- & H); exact H|intros ->; exists 4; split; reflexivity]. Qed.

Theorem split_join_split_unmap : exists x, reachable tiny all_rules x0 x /\ quiet x /\ stat x 1 = Freed /\
  what x 0 = Tab 2 /\ hole x 0 /\ mapped x 1 /\ wrote x 1 /\ what x 4 = Leaf 4 /\ dirty x 4 = true.
Proof.
  pose (a3 := ended (flushed (divided x0))). pose (a4 := reads a3 1). pose (a5 := joined a4 0).
  pose (a6 := writes a5 1 2). pose (a7 := all_in a6 0). pose (a8 := flushed_old a7). pose (a9 := with_dirty a8 0 true).
  pose (b1 := freed (carried a9)). pose (b2 := with_item b1 3 (Leaf 3) true). pose (b3 := with_item b2 4 (Leaf 4) true).
  pose (b4 := with_split (with_stat (with_item b3 0 (Tab 2) false) (fun u => if two u then Live else stat b3 u)) 0 (Open true)).
  pose (b5 := with_split (with_cache b4 (left b4 (cov tiny 0))) 0 (Flushed true)). pose (b6 := ended b5).
  pose (R := fun v => v = 0). pose (b7 := with_ranges b6 (fun v => mapped b6 v /\ ~ R v) (hole b6)).
  pose (b8 := with_cleared (with_item b7 3 Empty false) 3).
  pose (b9 := with_ranges (with_cache b8 (left b8 R)) (mapped b8) (fun v => hole b8 v \/ R v)).
  exists b9. split.
  - assert (reachable tiny all_rules x0 a3) as Ha3.
    { apply Then with (flushed (divided x0)); [apply Then with (divided x0); [apply Then with x0; [apply Here|]|]|].
      - apply divide; cbn; auto. intros _. apply x0_built; cbn; auto.
      - apply flush; cbn; auto. discriminate.
      - apply (FoldEnd tiny all_rules _ 0 false); cbn; auto.
        + intros _ [H|(s & <- & H)]; discriminate.
        + intros s l <-. discriminate. }
    assert (reachable tiny all_rules x0 a4) as Ha4 by (apply read_leaf; cbn; auto).
    assert (reachable tiny all_rules x0 a7) as Ha7.
    { apply Then with a6; [apply Then with a5; [apply Then with a4; [exact Ha4|]|]|].
      - apply join; cbn; auto; easy_ends. intros k. unfold set. destruct (Nat.eq_dec k 0); auto.
      - apply (HwBlind tiny all_rules a5 1 2 2 false); cbn; auto. apply cov_2. reflexivity.
      - apply JoinEnd; cbn; auto. intros _ s <-. reflexivity. }
    assert (reachable tiny all_rules x0 b1) as Hb1.
    { apply Then with (carried a9); [apply Then with a9; [apply Then with a8; [apply Then with a7; [exact Ha7|]|]|]|].
      - apply FlushJoined; [reflexivity|discriminate|apply left_flushes].
      - apply (FoldMark tiny all_rules a8 0 0); reflexivity.
      - apply Carry; cbn; auto. intros _ s l E W H s' l' L W' _. exists 0.
        assert (s' = 0) as ->.
        { cbn in L. unfold set in L. destruct (Nat.eq_dec ((s' + 1) / 2) 1); [discriminate|].
          destruct ((s' + 1) / 2) as [|t] eqn:F; [apply tab_0 in F; exact F|]. destruct t; [congruence|discriminate L]. }
        injection W' as <-. cbn. auto.
      - apply Free. cbn. auto. }
    assert (reachable tiny all_rules x0 b6) as Hb6.
    { apply Then with b5; [apply Then with b4; [apply Then with b3; [apply Then with b2;
        [apply Then with b1; [exact Hb1|]|]|]|]|].
      - apply Init. reflexivity.
      - apply Init. reflexivity.
      - apply (Subdivide tiny all_rules b3 0 0 true false 2 two); unfold ask; auto.
        + split; [reflexivity|split; [right; split; reflexivity|split; [cbn; auto|split; [|split]]]].
          * intros v H. apply cov_0 in H. exact H.
          * intros l H. cbn in H. unfold set in H. destruct (Nat.eq_dec l 0); destruct H; auto.
          * intros l H. cbn in H. unfold set in H. destruct (Nat.eq_dec l 0); discriminate.
        + intros _. constructor; unfold two.
          * intros u E. apply Nat.eqb_eq in E. subst. reflexivity.
          * intros u E. apply Nat.eqb_eq in E. subst. cbn. auto.
          * intros s E. apply Nat.eqb_eq in E. cbn in E. apply tab_2 in E.
            destruct E as [-> | ->]; cbn; repeat split; auto; try (intros s <-; reflexivity);
              apply cov_0; [apply cov_3 in H|apply cov_4 in H]; lia.
      - apply FlushOld; [reflexivity|intros s <-; discriminate|apply left_flushes].
      - apply (FoldEnd tiny all_rules b5 0 true); [reflexivity| |intros s l <-; discriminate].
        intros _ _ s l L W _. assert (s = 3 \/ s = 4) as [-> | ->].
        { cbn in L, W. unfold set, two in L, W. destruct (Nat.eq_dec s 0); [discriminate|].
          destruct ((s + 1) / 2) as [|[|[|t]]] eqn:E; [apply tab_0 in E; lia|discriminate|apply tab_2 in E; lia|discriminate]. }
        + injection W as <-. exists 3. cbn. auto.
        + injection W as <-. exists 4. cbn. auto. }
    apply Then with b8; [apply Then with b7; [apply Then with b6; [exact Hb6|]|]|].
    + apply Forget. cbn. intros l v [H|H]; unfold set in H; destruct (Nat.eq_dec l 0); try discriminate; destruct H; auto.
    + apply (Clear tiny all_rules b7 3 3); [reflexivity|reflexivity|]. intros v H [_ N]. apply cov_3 in H. auto.
    + apply FlushHole.
      * apply left_flushes.
      * cbn. intros v -> [_ N]. apply N. reflexivity.
      * intros s l v H W C ->. assert (s = 4) as ->.
        { destruct (Nat.eq_dec s 4); auto. destruct (Nat.eq_dec s 0) as [->|]; [discriminate W|].
          destruct (Nat.eq_dec s 3) as [->|]; [discriminate W|]. unfold hot, in_use in H. cbn in H, W.
          unfold set, two in H, W. destruct ((s + 1) / 2) as [|[|[|t]]] eqn:E;
            [apply tab_0 in E; lia|destruct H as [[H|H]|H]; discriminate|
             apply tab_2 in E; lia|destruct H as [[H|H]|H]; discriminate]. }
        injection W as <-. apply cov_4 in C. discriminate.
      * intros l v [[]| ->] C _ u Cu. apply cov_3 in Cu. exact Cu.
  - split; [|cbn; unfold R; repeat split; auto].
    split; [|split]; cbn; [intros l|intros l|intros [|[|[|t]]]]; unfold set;
      repeat match goal with |- context[Nat.eq_dec ?a ?b] => destruct (Nat.eq_dec a b) end; try split; auto; discriminate.
Qed.

Print Assumptions flush_old_is_needed.
Print Assumptions fold_is_needed.
Print Assumptions compare_is_needed.
Print Assumptions build_first_is_needed.
Print Assumptions flush_table_is_needed.
Print Assumptions join_same_is_needed.
Print Assumptions compare_up_is_needed.
Print Assumptions join_whole_is_needed.
Print Assumptions flush_joined_is_needed.
Print Assumptions flush_joined_is_needed_for_dirty.
Print Assumptions carry_is_needed.
Print Assumptions split_join_split_unmap.

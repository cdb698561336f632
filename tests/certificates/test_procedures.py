import numpy as np
import pytest

from dualrs.certificates import (
    VoteRequest,
    certify,
    clopper_pearson_lower,
    dual_certify,
    dual_predict,
    expert_name,
    gaussian_radius,
    predict,
    run_procedure,
)

SIGMAS = (0.25, 0.5, 1.0)


def play(procedure, *answers):
    """Answer the requests in turn, and check that the procedure asks no more and no less."""
    replies, requests = iter(answers), []

    def answer(request):
        requests.append(request)
        return np.array(next(replies))

    certificate = run_procedure(procedure, answer)
    assert next(replies, None) is None
    return certificate, requests


class TestCertify:
    def test_selects_and_estimates_with_separate_votes(self):
        certificate, requests = play(certify(0.5, alpha=0.0005), [10, 60, 30], [300, 9586, 114])
        assert requests == [VoteRequest("classifier", 0.5, 100), VoteRequest("classifier", 0.5, 10_000)]
        assert certificate.label == 1
        assert certificate.radius == pytest.approx(0.830494, abs=1e-6)
        assert (certificate.sigma, certificate.alpha, certificate.rule) == (0.5, 0.0005, "cohen")
        assert certificate.samples == 10_100
        selection, estimation = certificate.stages
        assert (selection.name, selection.counts, selection.level) == ("selection", (10, 60, 30), None)
        assert (estimation.name, estimation.counts, estimation.level) == (
            "estimation",
            (300, 9586, 114),
            0.0005,
        )
        assert (certificate.estimator_radius, certificate.classifier_radius) == (None, None)

    def test_bounds_the_selected_class_even_if_another_one_leads_later(self):
        certificate, _ = play(certify(0.5), [51, 49], [100, 9900])
        assert certificate.abstained

    def test_abstains_at_one_half(self):
        certificate, _ = play(certify(0.5), [60, 40], [5100, 4900])
        assert (certificate.label, certificate.radius, certificate.sigma) == (None, 0.0, 0.5)

    def test_the_smallest_of_tied_classes_is_selected(self):
        certificate, _ = play(certify(0.5), [0, 50, 50], [0, 9900, 100])
        assert certificate.label == 1

    def test_invalid_votes_count_against_the_class(self):
        certificate, _ = play(certify(1.0, n=100, alpha=0.01), [100, 0], [80, 0])
        assert certificate.radius == gaussian_radius(clopper_pearson_lower(80, 100, 0.01), 1.0)
        assert certificate.stages[1].invalid == 20

    def test_abstains_if_no_selection_vote_is_valid(self):
        certificate, requests = play(certify(0.5), [0, 0, 0])
        assert certificate.abstained
        assert len(requests) == 1
        assert certificate.samples == 100

    def test_asks_the_model_it_is_told_to(self):
        assert next(certify(0.5, model="vit")).model == "vit"

    def test_the_smallest_sufficient_n_is_accepted(self):
        certificate, _ = play(certify(0.5, n=10, alpha=0.001), [100], [10])
        assert certificate.radius > 0


class TestPredict:
    def test_answers_if_the_two_leading_classes_differ_clearly(self):
        certificate, requests = play(predict(0.5, n=100, alpha=0.001), [60, 20, 20])
        assert requests == [VoteRequest("classifier", 0.5, 100)]
        assert (certificate.label, certificate.radius, certificate.rule) == (0, 0.0, "predict")
        assert (certificate.stages[0].name, certificate.stages[0].level) == ("prediction", 0.001)

    def test_a_plurality_is_enough(self):
        assert play(predict(0.5, n=100, alpha=0.001), [40, 12, 12, 12, 12, 12])[0].label == 0

    @pytest.mark.parametrize("counts", [[50, 50], [55, 45], [33, 33, 34]])
    def test_abstains_if_they_do_not(self, counts):
        assert play(predict(0.5, n=100, alpha=0.001), counts)[0].abstained

    def test_invalid_votes_can_be_the_runner_up(self):
        assert play(predict(0.5, n=100, alpha=0.001), [55, 0])[0].abstained
        assert play(predict(0.5, n=100, alpha=0.001), [80, 0])[0].label == 0

    def test_invalid_votes_can_win(self):
        assert play(predict(0.5, n=100, alpha=0.001), [5, 0])[0].abstained
        assert play(predict(0.5, n=100, alpha=0.001), [0, 0])[0].abstained


class TestDualCertify:
    def test_takes_the_smaller_radius(self):
        answers = [[5, 90, 5], [200, 9700, 100], [80, 20], [9586, 414]]
        certificate, requests = play(dual_certify(1.0, SIGMAS), *answers)
        assert [(r.model, r.sigma, r.count) for r in requests] == [
            ("estimator", 1.0, 100),
            ("estimator", 1.0, 10_000),
            ("expert-0.5", 0.5, 100),
            ("expert-0.5", 0.5, 10_000),
        ]
        assert certificate.classifier_radius == pytest.approx(0.830494, abs=1e-6)
        assert certificate.estimator_radius == gaussian_radius(clopper_pearson_lower(9700, 10_000, 0.0005), 1.0)
        assert certificate.radius == certificate.classifier_radius < certificate.estimator_radius
        assert (certificate.label, certificate.sigma, certificate.rule) == (0, 0.5, "min")
        assert [stage.name for stage in certificate.stages] == [
            "estimator/selection",
            "estimator/estimation",
            "classifier/selection",
            "classifier/estimation",
        ]
        assert [stage.level for stage in certificate.stages] == [None, 0.0005, None, 0.0005]

    def test_the_estimator_can_be_the_limit(self):
        certificate, _ = play(dual_certify(1.0, SIGMAS), [0, 0, 100], [0, 4000, 6000], [100, 0], [9999, 1])
        assert certificate.radius == certificate.estimator_radius < certificate.classifier_radius

    def test_asks_no_expert_if_the_estimator_abstains(self):
        certificate, requests = play(dual_certify(1.0, SIGMAS), [40, 30, 30], [4000, 3000, 3000])
        assert certificate.abstained
        assert {request.model for request in requests} == {"estimator"}
        assert (certificate.sigma, certificate.estimator_radius, certificate.classifier_radius) == (
            None,
            0.0,
            None,
        )

    def test_abstains_if_the_classifier_does(self):
        certificate, _ = play(dual_certify(1.0, SIGMAS), [100, 0, 0], [10_000, 0, 0], [50, 50], [5000, 5000])
        assert (certificate.label, certificate.radius, certificate.sigma) == (None, 0.0, 0.25)
        assert certificate.estimator_radius > 0
        assert certificate.classifier_radius == 0

    @pytest.mark.parametrize("sigmas", [(0.25, 0.5), (0.5, 0.5)])
    def test_experts_can_be_named_and_then_share_a_noise_level(self, sigmas):
        procedure = dual_certify(1.0, sigmas, n=20, alpha=0.1, experts=("small", "large"))
        certificate, requests = play(procedure, [0, 100], [0, 20], [100], [20])
        assert [(request.model, request.sigma) for request in requests[2:]] == [("large", 0.5)] * 2
        assert (certificate.expert, certificate.sigma) == ("large", 0.5)

    def test_a_certificate_says_who_answered(self):
        assert play(certify(0.5, model="vit"), [100], [10_000])[0].expert == "vit"
        assert play(dual_certify(1.0, SIGMAS), [40, 30, 30], [4000, 3000, 3000])[0].expert is None
        abstained, _ = play(dual_certify(1.0, SIGMAS), [100, 0, 0], [10_000, 0, 0], [50, 50], [5000, 5000])
        assert (abstained.label, abstained.expert) == (None, "expert-0.25")


class TestDualPredict:
    def test_predicts_the_noise_level_and_then_the_label(self):
        certificate, requests = play(dual_predict(1.0, SIGMAS, n=100), [5, 5, 90], [0, 98, 2])
        assert [(r.model, r.sigma, r.count) for r in requests] == [
            ("estimator", 1.0, 100),
            ("expert-1", 1.0, 100),
        ]
        assert (certificate.label, certificate.radius, certificate.sigma) == (1, 0.0, 1.0)
        assert certificate.rule == "dual-predict"
        assert [(s.name, s.level) for s in certificate.stages] == [
            ("estimator/prediction", 0.0005),
            ("classifier/prediction", 0.0005),
        ]

    def test_abstains_if_either_stage_does(self):
        assert play(dual_predict(1.0, SIGMAS, n=100), [40, 40, 20])[0].abstained
        assert play(dual_predict(1.0, SIGMAS, n=100), [0, 0, 100], [50, 50])[0].abstained


class TestRefusalsBeforeTheFirstRequest:
    """Every one of these is raised by the call itself; no vote has been drawn."""

    def test_too_few_votes_to_certify(self):
        message = (
            r"even a unanimous vote of n = 5 gives p_A >= 0\.2512 at level 0\.001, and a certificate needs "
            r"more than 1/2: use n >= 10$"
        )
        with pytest.raises(ValueError, match=message):
            certify(0.5, n=5, alpha=0.001)
        with pytest.raises(ValueError, match=r"at level 0\.0005, .* use n >= 11$"):
            dual_certify(1.0, SIGMAS, n=10, alpha=0.001)
        dual_certify(1.0, SIGMAS, n=11, alpha=0.001)

    def test_too_few_votes_to_predict(self):
        message = r"a unanimous vote of n = 10 has p-value 0\.001953, and .* at level 0\.001 .*: use n >= 11$"
        with pytest.raises(ValueError, match=message):
            predict(0.5, n=10, alpha=0.001)
        with pytest.raises(ValueError, match=r"use n >= 12$"):
            dual_predict(1.0, SIGMAS, n=11, alpha=0.001)
        predict(0.5, n=11, alpha=0.001)

    @pytest.mark.parametrize("alpha", [0.9, 0.5, 0.25, 0.1, 1e-12])
    def test_the_advice_is_exact(self, alpha):
        for procedure in (certify, predict):
            n = next(n for n in range(1, 100) if not refuses(procedure, n, alpha))
            if n > 1:
                with pytest.raises(ValueError, match=rf"use n >= {n}$"):
                    procedure(0.5, n=1, alpha=alpha)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan")])
    def test_failure_probabilities(self, alpha):
        for call in (lambda: certify(0.5, alpha=alpha), lambda: dual_predict(1.0, SIGMAS, alpha=alpha)):
            with pytest.raises(ValueError, match="alpha is a failure probability"):
                call()

    def test_noise_levels(self):
        with pytest.raises(ValueError, match="sigma must be positive and finite, got 0"):
            certify(0)
        with pytest.raises(ValueError, match="sigma_e must be positive"):
            dual_certify(-1.0, SIGMAS)
        with pytest.raises(ValueError, match=r"sigmas\[1\] must be positive and finite, got nan"):
            dual_certify(1.0, (0.25, float("nan")))

    @pytest.mark.parametrize("sigmas", [(), (0.5, 0.25)])
    def test_candidates_that_do_not_ascend(self, sigmas):
        with pytest.raises(ValueError, match="at least one noise level, in ascending order, got"):
            dual_certify(1.0, sigmas)

    def test_numbers_of_votes(self):
        with pytest.raises(ValueError, match="n0 must be at least 1, got 0"):
            certify(0.5, n0=0)
        with pytest.raises(ValueError, match="n must be at least 1, got 0"):
            predict(0.5, n=0)
        with pytest.raises(TypeError, match=r"n must be an integer, got 100\.0"):
            dual_predict(1.0, SIGMAS, n=100.0)

    @pytest.mark.parametrize("experts", [("a", "b"), "abc"])
    def test_experts_that_do_not_match(self, experts):
        with pytest.raises(ValueError, match="experts must be a sequence of 3 names"):
            dual_certify(1.0, SIGMAS, experts=experts)

    @pytest.mark.parametrize("sigmas", [(0.1234567, 0.12345671), (0.5, 0.5)])
    def test_noise_levels_that_share_a_default_name(self, sigmas):
        with pytest.raises(ValueError, match=r"share expert names .*: name the experts yourself"):
            dual_certify(1.0, sigmas)
        assert expert_name(0.25) == "expert-0.25"

    def test_one_name_at_one_noise_level_twice(self):
        with pytest.raises(ValueError, match=r"distinct names, .* got \('a', 'a'\) at \(0.5, 0.5\)"):
            dual_certify(1.0, (0.5, 0.5), experts=("a", "a"))
        dual_certify(1.0, (0.25, 0.5), experts=("a", "a")).close()  # noise levels tell their votes apart


class TestRefusalsOfAnswers:
    def test_an_estimator_with_the_wrong_number_of_classes(self):
        with pytest.raises(ValueError, match=r"'estimator' was answered with 4 class counts instead of 3"):
            play(dual_certify(1.0, SIGMAS), [25, 25, 25, 25])

    def test_a_model_that_changes_its_number_of_classes(self):
        with pytest.raises(ValueError, match=r"'classifier' was answered with 3 class counts instead of 2"):
            play(certify(0.5), [100, 0], [10_000, 0, 0])

    def test_more_votes_than_asked_for(self):
        with pytest.raises(ValueError, match=r"counts 101 votes \(100, 1\) but drew only 100"):
            play(certify(0.5), [100, 1])

    def test_negative_votes(self):
        with pytest.raises(ValueError, match="every count must be at least 0, got -1"):
            play(predict(0.5), [100, -1])

    def test_a_table_of_votes(self):
        with pytest.raises(ValueError, match=r"one count per class, got shape \(1, 2\)"):
            play(predict(0.5), [[100, 1]])

    def test_frequencies_instead_of_counts(self):
        with pytest.raises(TypeError, match="the votes of model 'classifier' must be integers"):
            play(predict(0.5), [0.9, 0.1])


def refuses(procedure, n, alpha):
    try:
        procedure(0.5, n=n, alpha=alpha)
    except ValueError:
        return True
    return False
